"""The data engine: plan, record on parallel CARLA servers, cut into shards of clip pairs (paper, section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeVar

from prefect import flow
from pydantic import Field

from infra.prefect_worker import end_with_worker
from tasks.planning.preset import Count, PlanOverrides, PlanPreset, Seed, Town, TrajectoryType, WeatherName
from tasks.planning.task import plan_recordings
from tasks.recording.task import record_clips
from tasks.sharding.task import write_dataset

Item = TypeVar("Item")
NonEmptyList = Annotated[list[Item], Field(min_length=1, max_length=1000)]
DatasetName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]
DatasetPlace = Annotated[
    str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,63}|[A-Za-z][A-Za-z0-9+.-]*://\S+)$", max_length=1024)
]
"""The name of a folder in the state folder's `datasets/`, or a URL such as s3://bucket/name."""
Servers = Annotated[int, Field(ge=1, le=256)] | Literal["fit"]
"""How many CARLA servers; "fit": as many as Ray's nodes hold, also those that join later."""
Limit = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""A time in seconds."""


@flow(name="collect-dataset", validate_parameters=True, on_running=[end_with_worker])
def collect_dataset(
    dataset: DatasetName = "demo",
    plan_preset: str = "demo",
    overrides: PlanOverrides | None = None,
    simulator: Literal["embedded", "carla"] = "embedded",
    carla_executable: str = "",
    carla_options: list[str] | None = None,
    maps_dir: str = "",
    servers: Servers = 2,
    towns: NonEmptyList[Town] | None = None,
    trajectory_types: NonEmptyList[TrajectoryType] | None = None,
    weathers: NonEmptyList[WeatherName] | None = None,
    recordings_per_town: Count | None = None,
    seed: Seed | None = None,
    samples_per_shard: Count = 32,
    recording_limit_s: Limit | None = None,
    run_limit_s: Limit | None = None,
    retry_quarantined: bool = False,
) -> dict:
    """Record `dataset` by the plan preset and the changes given here; continue where an earlier run stopped.

    `overrides`: any fields of the plan preset (tasks/planning/preset.py), {"repeats": 3, "view_width": 384}; those that
    are changed most often have parameters of their own. Once there are recordings, the plan cannot change: give another
    plan another `dataset` name. `servers` counts CARLA servers on all of Ray's nodes together; "fit" is as many as they
    hold. A recording that takes longer than `recording_limit_s` (by default estimated from its ticks) gets another
    server. After `run_limit_s` recording ends, what is in hand is left to the next run, and the data set is written
    with what there is. Returns the data set's folder, digest and counts, and the recordings that it lacks: the next run
    tries those that `failed` again, and those `quarantined` after three runs only with `retry_quarantined`.
    """
    changed = PlanPreset.changes(
        overrides,
        towns=towns,
        trajectory_types=trajectory_types,
        weathers=weathers,
        recordings_per_town=recordings_per_town,
        seed=seed,
    )
    simulator_options = {
        "kind": simulator,
        "executable": carla_executable,
        "options": tuple(carla_options or ()),
        "maps_dir": maps_dir,
    }
    recording = {
        "recording_limit_s": recording_limit_s,
        "run_limit_s": run_limit_s,
        "retry_quarantined": retry_quarantined,
    }
    return collect(dataset, plan_preset, changed, simulator_options, servers, samples_per_shard, recording)


def collect(
    dataset: str,
    plan_preset: str,
    overrides: dict[str, Any],
    simulator_options: dict[str, Any],
    servers: Servers,
    samples_per_shard: int,
    recording: Mapping[str, Any] = MappingProxyType({}),
) -> dict:
    """Plan, record and write shards; call it in a flow. `recording`: further arguments of `record_clips`."""
    plan_recordings(dataset, plan_preset, overrides, simulator_options)
    lacking = record_clips(dataset, simulator_options, servers, **recording)
    return write_dataset(dataset, samples_per_shard) | lacking
