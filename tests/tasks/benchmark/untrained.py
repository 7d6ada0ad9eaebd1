"""What stands in for Prefect, Ray and training where only scoring and keeping is tested."""

from __future__ import annotations

from typing import Any

from infra.storage import no_progress
from model.build import build_transformer
from tests.local_encoding import encode_here


def stand_ins(did: dict[str, list]) -> dict[str, Any]:
    """Return stand-ins by name: latents made here, models at their random start for trained ones.

    `did` has "trained", to which run ids are added, and "said", to which what is logged is added.
    """

    class Logger:
        info = warning = staticmethod(did["said"].append)

    def encode_run(run, on_progress):
        return encode_here(run.dataset_dir, run.preset), {}

    def train_arms(runs, latents, rows_of, on_progress, side_by_side=None):
        for run in runs:
            if run.latest_checkpoint() is None:
                did["trained"].append(run.run_id)
                folder = run.folder / "checkpoints" / f"step-{run.preset.training.train_steps:06d}"
                build_transformer(run.preset).save_pretrained(folder / "model")
                (folder / "trainer.json").write_text("{}")

    return {
        "get_run_logger": lambda: Logger, "FlowProgress": lambda *_: no_progress, "prefect_tags": dict,
        "encode_run": encode_run, "train_arms": train_arms,
    }  # fmt: skip
