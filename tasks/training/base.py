"""A base to start from, written from a run's last checkpoint: small enough to lie in the repository.

README.md     the card: what it learned from, for how long, how to make it again
transformer/  the averaged weights in bfloat16 (diffusers layout, safetensors), and what they learned with
codec/        the linear codec that its latents are made with
SHA256SUMS    of all files, checked when they are loaded (model/weights.py)
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import torch

from infra.storage import atomic_dir
from model.base_model import LEARNED_FIELDS, LEARNED_WITH
from model.codec import LINEAR_CODEC_FOLDER
from model.transformer import ShareVerseTransformer3DModel
from model.weights import CHECKSUMS, WeightsError, load_weights
from tasks.encoding.latents import LatentWindows, latents_key
from tasks.runs.checkpoint_record import check_files, repair_advice
from tasks.runs.errors import RunError
from tasks.runs.run import Run, steps_of
from tasks.runs.spool import read_rows

CARD = """# ShareVerse's small base

CogVideoX's transformer at {parameters:.1f} M parameters with raymap encoders: it generates what one car's four cameras
see in the next {frames} frames, from the first one and the cameras' poses. It knows nothing of another agent.
Fine-tunings start from it (`base_model = "shareverse-base"`).

| | |
|---|---|
| pictures | mosaics of {width}x{height}, four views of {view_width}x{view_height} |
| data set | `{dataset}`, digest `{digest}`: {windows} windows of {towns} |
| training | preset `{preset}`, seed {seed}, {steps} steps of {batch} pairs of clips, {hours:.1f} hours |
| losses | training {train_loss}, validation {val_loss} |
| codec | linear, {channels} channels per 8x8x4 block |

Made by `prefect deployment run train-base/local` and `shareverse export-base {run} {folder}`; licence as the project's.
"""


def write_base(run: Run, folder: Path) -> Path:
    """Write a run's last checkpoint as a base to a new `folder`, complete or not at all.

    RunError when there is no checkpoint, it is damaged, the run's model attends to other agents, or the folder exists.
    """
    checkpoint = run.latest_checkpoint()
    if checkpoint is None:
        raise RunError(f"run {run.run_id} has no checkpoint in {run.folder}: train it first.")
    if run.preset.transformer.cross_agent != "off" or run.preset.codec.codec != "linear":
        raise RunError(f"run {run.run_id} is no base: it has cross-agent blocks or another codec than the linear one.")
    if folder.is_dir() and any(folder.iterdir()):
        raise RunError(f"{folder} is not empty: name a new folder.")
    check_files(checkpoint, "model/")
    latents = run.dataset_dir / "latents" / latents_key(run.dataset_digest, run.preset)
    try:
        options = {"low_cpu_mem_usage": False, "torch_dtype": torch.bfloat16}
        model = load_weights(ShareVerseTransformer3DModel, checkpoint / "model", **options)
    except WeightsError as error:
        raise RunError(f"{error}: {repair_advice(checkpoint)}") from error
    with atomic_dir(folder.absolute()) as temporary:
        model.save_pretrained(temporary / "transformer")
        fields = run.preset.flat()
        learned_with = {field: fields[field] for field in LEARNED_FIELDS}
        (temporary / "transformer" / LEARNED_WITH).write_text(json.dumps(learned_with, indent=1) + "\n")
        shutil.copytree(latents / LINEAR_CODEC_FOLDER, temporary / LINEAR_CODEC_FOLDER)
        (temporary / "README.md").write_text(card(run, checkpoint, model.num_parameters(), latents, folder))
        write_checksums(temporary)
    return folder


def card(run: Run, checkpoint: Path, parameters: int, latents: Path, folder: Path) -> str:
    """Return the card: the run's own figures."""
    preset, steps = run.preset, steps_of(checkpoint)
    rows = [row for row in read_rows(run.spool) if row["step"] <= steps]
    losses = {name: next((f"{row[name]:.4f}" for row in reversed(rows) if name in row), "not measured")
              for name in ("train/loss", "val/loss")}  # fmt: skip
    windows = LatentWindows(latents, "train")
    seconds = sum(row.get("train/step_s", 0.0) * preset.training.log_every for row in rows)
    return CARD.format(
        parameters=parameters / 1e6, frames=preset.video.frames - 1, width=preset.video.width,
        height=preset.video.height, view_width=preset.video.width // 2, view_height=preset.video.height // 2,
        dataset=run.dataset, digest=run.dataset_digest[:16], windows=len(windows),
        towns=", ".join(sorted({row["town"] for row in windows.rows})),
        preset=preset.name, seed=preset.training.seed, steps=steps, batch=preset.training.batch_size,
        hours=seconds / 3600, train_loss=losses["train/loss"], val_loss=losses["val/loss"],
        channels=preset.codec.latent_channels, run=run.run_id, folder=folder.name,
    )  # fmt: skip


def write_checksums(folder: Path) -> None:
    """Write SHA256SUMS of all files below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUMS)
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder)}\n" for path in files]
    (folder / CHECKSUMS).write_text("".join(lines))
