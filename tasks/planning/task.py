"""The Prefect task that makes a data set's plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from prefect import task
from prefect.logging import get_run_logger

from infra.carla_servers import CarlaServer, SimulatorSpec
from infra.prefect_progress import FlowProgress
from infra.storage import home
from tasks.planning.plan import make_plan
from tasks.planning.preset import PlanPreset
from tasks.planning.record import read_plan_record


@task(name="plan-recordings")
def plan_recordings(dataset: str, plan_preset: str, overrides: dict[str, Any], simulator_options: dict) -> None:
    """Write the plan of `dataset` unless it is there. `overrides` are the preset's fields that change; None keeps one.

    PlanningError for what cannot be planned, CarlaServerError when no simulator answers.
    """
    log = get_run_logger()
    changes = {name: value for name, value in overrides.items() if value is not None}
    preset = PlanPreset.load(plan_preset).replace(**changes)
    spec, folder = SimulatorSpec(**simulator_options), home() / "datasets" / dataset

    def server() -> CarlaServer:
        return CarlaServer(spec, folder / "logs", "survey")

    new = make_plan(folder, preset, server, on_progress=FlowProgress("planning", "towns"))
    record = read_plan_record(folder / "plan.json")
    for sentence in record["shortfalls"]:
        log.warning(sentence)
    for town, lack in record["lacking_spares"].items():
        told = ", ".join(f"{count} {kind}" for kind, count in lack.items())
        log.info(f"No further site for spare recordings ({town}); of these there are fewer: {told}.")
    log.info(f"{'Planned' if new else 'The plan was there:'} {recordings_in(folder)} recordings of {dataset}.")


def recordings_in(folder: Path) -> int:
    """Return the number of rows of a data set's plan."""
    return pq.read_metadata(folder / "plan.parquet").num_rows
