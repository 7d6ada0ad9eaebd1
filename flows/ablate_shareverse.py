"""Ablations: does what one agent knows reach the other? Hidden facts, and the paper's ablations (4.3 and 5.3)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from prefect import flow
from pydantic import Field

from flows.collect_dataset import DatasetName, NonEmptyList, Servers, collect
from infra.prefect_worker import end_with_worker
from tasks.benchmark.arms import MODEL_PRESET, ablation_of
from tasks.benchmark.errors import BenchmarkError
from tasks.benchmark.paper.study import studies_of
from tasks.benchmark.paper.task import compare_with_paper, is_collected
from tasks.benchmark.task import check_hidden_facts, compare_arms, sum_up
from tasks.planning.preset import Town


@flow(name="ablate-shareverse", validate_parameters=True, on_running=[end_with_worker])
def ablate_shareverse(
    size: Literal["demo", "quick", "full"] = "quick",
    simulator: Literal["embedded", "carla"] = "embedded",
    carla_executable: str = "",
    carla_options: list[str] | None = None,
    maps_dir: str = "",
    servers: Servers = 2,
    towns: NonEmptyList[Town] | None = None,
    test_towns: NonEmptyList[Town] | None = None,
    bench_preset: str = MODEL_PRESET,
    arms_at_a_time: Annotated[int, Field(ge=1, le=64)] | None = None,
    study: Literal["sharing", "paper", "all"] | None = None,
    paper_dataset: DatasetName = "demo",
    paper_preset: str = "small",
) -> list[dict[str, Any]]:
    """Record the scenes, then train and score the arms: `quick` one task and one seed, `full` all tasks, three seeds.

    `study`: "sharing" for hidden facts; "paper" for the paper's own ablations on an ordinary data set (the model preset
    `paper_preset` on `paper_dataset`, which is recorded by the plan preset of that name where it does not exist). By
    default both for full, else "sharing". `towns` replace the embedded ones for hidden facts; `test_towns` are among
    them. `bench_preset`: the model preset of the hidden facts' arms; scenes are recorded at its picture size, and its
    steps are those of the shortest setting, appearance large. `arms_at_a_time`: arms that train side by side, by
    default one per GPU, or one on all GPUs where its batch divides; without GPUs one per core.
    Every finished run is kept, and with equal parameters only what is missing is done. Returns one row of figures per
    arm. BenchmarkError, after the other settings are done, for those whose scenes leak or cannot be read.
    """
    simulator_options = {
        "kind": simulator,
        "executable": carla_executable,
        "options": tuple(carla_options or ()),
        "maps_dir": maps_dir,
    }
    studies = studies_of(size, study)
    settings = ablation_of(size, bench_preset).settings if "sharing" in studies else ()
    if "paper" in studies and not is_collected(paper_dataset):
        collect(paper_dataset, paper_dataset, {}, simulator_options, servers, samples_per_shard=32)
    rows: list[dict[str, Any]] = []
    refusals: list[str] = []
    overrides: dict[str, Any] = {"towns": towns, "test_towns": test_towns}
    if simulator == "carla":  # no two recordings are equal there, so instance ids must show that a fact is hidden
        overrides["ground_truth_splits"] = ["train", "val", "test"]
    for number, setting in enumerate(settings):
        plan = overrides | setting.view_size
        collect(setting.dataset, setting.plan_preset, plan, simulator_options, servers, samples_per_shard=128)
        try:
            leaks = check_hidden_facts(setting.dataset, exact=simulator == "embedded")
            rows += compare_arms(size, bench_preset, number, leaks, arms_at_a_time)
        except BenchmarkError as reason:  # the other settings can still be measured
            refusals.append(f"{setting.name}: {reason}")
    if rows:
        sum_up(rows)
    if "paper" in studies:
        rows = [*rows, *compare_with_paper(size, paper_dataset, paper_preset, arms_at_a_time)]
    if refusals:
        raise BenchmarkError(" ".join(refusals))
    return rows
