"""The Prefect task that cuts recordings into shards and describes them."""

from __future__ import annotations

from prefect import runtime, task
from prefect.logging import get_run_logger

from infra.mlflow_tracking import TrackingError
from infra.prefect_progress import FlowProgress
from infra.storage import home
from tasks.sharding.card import CARD_FOLDER, write_card
from tasks.sharding.shards import write_shards
from tasks.sharding.tracking import log_dataset


@task(name="write-dataset")
def write_dataset(dataset: str, samples_per_shard: int) -> dict:
    """Write the shards, data card and MLflow run of `dataset`, as far as they are missing or outdated.

    Returns the folder, the digest, the number of clip pairs, missing recordings with their reasons, and the run's
    address ("" while MLflow is down: the next run of the deployment sends it).
    """
    log = get_run_logger()
    folder = home() / "datasets" / dataset
    done = write_shards(folder, samples_per_shard=samples_per_shard, on_progress=FlowProgress("sharding", "shards"))
    log.info(
        f"{done.clips} clip pairs in {done.written + done.kept} shards ({done.kept} were there), "
        f"digest {done.digest[:12]}, in {folder}."
    )
    for recording_id, reason in done.missing.items():
        log.warning(f"Not in the data set: recording {recording_id} ({reason})")
    if write_card(folder, on_progress=FlowProgress("data-card", "towns")):
        log.info(f"Data card: {folder / CARD_FOLDER / 'README.md'}")
    tags = {"prefect.flow_run_id": str(runtime.flow_run.id), "prefect.url": runtime.flow_run.ui_url}
    url = ""
    try:
        url = log_dataset(folder, tags)
        log.info(f"In MLflow: {url}")
    except TrackingError as error:
        log.warning(f"{error} The data set in {folder} is complete; run collect-dataset again to send its card.")
    return {
        "folder": str(folder),
        "digest": done.digest,
        "clips": done.clips,
        "missing": done.missing,
        "mlflow_url": url,
    }
