"""The Prefect task that encodes a data set's clips for a run."""

from __future__ import annotations

from prefect import task
from prefect.logging import get_run_logger

from infra.prefect_progress import FlowProgress, prefect_tags
from tasks.encoding.encode import encode_run
from tasks.runs.outbox import mark_failed
from tasks.runs.run import read_run


@task(name="encode-clips")
def encode_clips(dataset: str, run_id: str) -> str:
    """Encode what the run needs of `dataset` and has not got; return the latents' folder.

    EncodingError for a data set that was changed since the run was opened, CodecError for a codec that can't be loaded;
    then the MLflow run is marked as failed.
    """
    log, run = get_run_logger(), read_run(run_id)
    try:
        folder, windows = encode_run(run, FlowProgress("encoding", "clips"))
    except BaseException as error:
        if reason := mark_failed(run, prefect_tags(), error):
            log.warning(reason)
        raise
    counts = ", ".join(f"{count} {split}" for split, count in windows.items())
    log.info(f"Latents of {dataset}: {counts} windows in {folder}")
    return str(folder)
