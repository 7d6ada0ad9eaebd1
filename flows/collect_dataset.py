"""The data engine: plan, record on parallel CARLA servers, cut into shards of clip pairs (paper, section 3)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from prefect import flow
from pydantic import Field

from infra.prefect_worker import end_with_worker
from tasks.planning.task import plan_recordings
from tasks.recording.task import record_clips
from tasks.sharding.task import write_dataset

TrajectoryType = Literal["straight_meeting", "following", "crossing", "turning_meeting", "merging", "diverging"]
WeatherName = Literal["clear_noon", "wet_overcast", "foggy_sunset"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]


@flow(name="collect-dataset", validate_parameters=True, on_running=[end_with_worker])
def collect_dataset(
    dataset: Name = "demo",
    plan_preset: str = "demo",
    simulator: Literal["embedded", "carla"] = "embedded",
    carla_executable: str = "",
    carla_options: list[str] | None = None,
    maps_dir: str = "",
    servers: Annotated[int, Field(ge=1, le=256)] = 2,
    towns: list[str] | None = None,
    trajectory_types: list[TrajectoryType] | None = None,
    weathers: list[WeatherName] | None = None,
    recordings_per_town: Annotated[int, Field(ge=1)] | None = None,
    seed: Annotated[int, Field(ge=0)] | None = None,
    samples_per_shard: Annotated[int, Field(ge=1)] = 32,
) -> dict:
    """Record `dataset` as the plan preset says, with what is given here changed; go on where an earlier run stopped.

    Returns the data set's folder, digest and counts. A plan can't be changed under recordings: another plan needs
    another `dataset` name.
    """
    overrides = {
        "towns": towns,
        "trajectory_types": trajectory_types,
        "weathers": weathers,
        "recordings_per_town": recordings_per_town,
        "seed": seed,
    }
    simulator_options = {
        "kind": simulator,
        "executable": carla_executable,
        "options": tuple(carla_options or ()),
        "maps_dir": maps_dir,
    }
    return collect(dataset, plan_preset, overrides, simulator_options, servers, samples_per_shard)


def collect(
    dataset: str,
    plan_preset: str,
    overrides: dict[str, Any],
    simulator_options: dict[str, Any],
    servers: int,
    samples_per_shard: int,
) -> dict:
    """Plan, record and write shards; to be called in a flow."""
    plan_recordings(dataset, plan_preset, overrides, simulator_options)
    record_clips(dataset, simulator_options, servers)
    return write_dataset(dataset, samples_per_shard)
