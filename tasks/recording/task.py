"""The Prefect task that records a plan on a pool of CARLA servers."""

from __future__ import annotations

from prefect import task
from prefect.logging import get_run_logger

from infra.carla_servers import SimulatorSpec
from infra.prefect_progress import FlowProgress
from infra.storage import home
from tasks.recording.errors import RecordingError
from tasks.recording.pool import record_plan


@task(name="record-clips")
def record_clips(dataset: str, simulator_options: dict, servers: int) -> None:
    """Record what `dataset` still lacks. What failed its gates is left out, with its reason in the log.

    RecordingError when recordings are missing because of faults: then the same flow again tries them again.
    """
    log = get_run_logger()
    spec, folder = SimulatorSpec(**simulator_options), home() / "datasets" / dataset
    done = record_plan(folder, spec, servers=servers, on_progress=FlowProgress("recording", "recordings"))
    for line in done.sentences():
        log.info(line)
    if done.faults:
        first = next(iter(done.faults.values()))
        raise RecordingError(
            f"{len(done.faults)} of {done.total} recordings could not be made ({first}): run the flow again to try "
            f"them again; the servers' logs are in {folder / 'logs'}."
        )
