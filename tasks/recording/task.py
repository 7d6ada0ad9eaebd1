"""The Prefect task that records a plan on a pool of CARLA servers."""

from __future__ import annotations

from typing import Any

from prefect import task
from prefect.logging import get_run_logger

from infra.carla_servers import SimulatorSpec
from infra.prefect_progress import FlowProgress, FlowTables
from infra.storage import home
from tasks.recording.errors import RecordingError
from tasks.recording.pool import Servers, record_plan
from tasks.recording.progress import Progress


class ProgressTables:
    """Shows how far the recording is as two tables in Prefect, with the figures of the whole above the first."""

    def __init__(self) -> None:
        self.tables = FlowTables()

    def __call__(self, progress: Progress) -> None:
        last = progress.run is not None and progress.run.over
        self.tables.put("recording-by-town", progress.towns_table(), "\n\n".join(progress.sentences()), last=last)
        self.tables.put("recording-servers", progress.servers_table(), "The servers, by node.", last=last)


@task(name="record-clips")
def record_clips(
    dataset: str,
    simulator_options: dict,
    servers: Servers,
    recording_limit_s: float | None = None,
    run_limit_s: float | None = None,
    retry_quarantined: bool = False,
) -> dict[str, Any]:
    """Record what `dataset` still lacks; what could not be made is left out of it, with its reason in the log.

    Returns by id why recordings failed in this run (`failed`: the next run tries them again), run after run
    (`quarantined`) or at a quality gate (`rejected`). RecordingError when there is not a single recording, or no server
    to record on; StorageError when the disk is full.
    """
    log = get_run_logger()
    spec, folder = SimulatorSpec(**simulator_options), home() / "datasets" / dataset
    done = record_plan(
        folder,
        spec,
        servers=servers,
        on_progress=FlowProgress("recording", "recordings"),
        log=log,
        recording_limit_s=recording_limit_s,
        run_limit_s=run_limit_s,
        retry_quarantined=retry_quarantined,
        show=ProgressTables(),
    )
    head, *others = done.sentences()
    log.info(head)
    for line in others:
        log.warning(line)
    if done.total and not done.made:
        first = next(iter((done.faults | done.quarantined | done.rejected).values()), "its deadline came first")
        raise RecordingError(
            f"none of {done.total} recordings could be made ({first}): the servers' logs are in {folder / 'logs'}; "
            "run the flow again to try again."
        )
    if done.faults:
        log.warning(
            f"{len(done.faults)} of {done.total} recordings could not be made in this run, and the data set is written "
            "without them: run the flow again to add them."
        )
    return {"failed": done.faults, "quarantined": done.quarantined, "rejected": done.rejected}
