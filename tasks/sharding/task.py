"""The Prefect task that cuts recordings into shards and describes them."""

from __future__ import annotations

from prefect import task
from prefect.logging import get_run_logger

from infra.prefect_progress import FlowProgress
from infra.storage import home
from tasks.sharding.shards import write_shards


@task(name="write-dataset")
def write_dataset(dataset: str, samples_per_shard: int) -> dict:
    """Write what is missing of the shards of `dataset`; return its folder, digest and counts."""
    log = get_run_logger()
    folder = home() / "datasets" / dataset
    done = write_shards(folder, samples_per_shard=samples_per_shard, on_progress=FlowProgress("sharding", "shards"))
    log.info(
        f"{done.clips} clip pairs in {done.written + done.kept} shards ({done.kept} were there), "
        f"digest {done.digest[:12]}, {folder}."
    )
    return {"folder": str(folder), "digest": done.digest, "clips": done.clips, "missing": done.missing}
