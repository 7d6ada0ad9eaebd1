"""What can be known before anything costs, asked before the first clip is encoded; each refusal is one sentence."""

from __future__ import annotations

import torch

from infra.deepspeed_config import accumulation_steps
from model.base_model import check_base
from model.build import text_embedding
from model.codec import check_vae
from tasks.encoding.encode import bytes_to_encode
from tasks.encoding.frames import window_starts
from tasks.runs.checkpoint_record import check_resumable
from tasks.runs.errors import RunError
from tasks.runs.run import Run, steps_of
from tasks.sharding.reader import ClipIndex, read_cameras
from tasks.training.group import check_stage
from tasks.training.needs import needs_of
from tasks.training.optimizer import eight_bit_adamw
from tasks.training.resources import check_disk, check_memory

NEEDED = {"train": "it is trained on them", "test": "it is scored on them"}


def preflight(run: Run, processes: int) -> None:
    """Check what a training will need; nothing is written, and little is read.

    RunError, DeepSpeedConfigError, PresetError, CodecError, ShardError or StorageError for the first thing that is
    missing, damaged, does not fit the rest, or would not have the room.
    """
    training = run.preset.training
    accumulation_steps(training.batch_size, training.micro_batch_size, processes)
    check_stage(run)
    check_cards(processes)
    last = run.latest_checkpoint()
    if last is not None and steps_of(last) >= training.train_steps:
        return
    if last is not None:
        check_resumable(last, run, processes)
    check_clips(run)
    if run.preset.transformer.base_model:
        check_base(run.preset)
        text_embedding(run.preset)
    if training.optimizer == "adamw8bit":
        eight_bit_adamw()
    if run.preset.codec.codec != "linear":
        check_vae(run.preset.codec)
    check_memory(run.preset, processes)
    checkpoints = max(1, training.keep_checkpoints + 1 - len(run.checkpoints()))
    check_disk(
        {
            run.dataset_dir / "latents": bytes_to_encode(run.dataset_dir, run.preset),
            run.folder: checkpoints * needs_of(run.preset, processes).checkpoint,
        }
    )


def check_cards(processes: int) -> None:
    """Raise RunError where there are fewer GPUs than processes, which take one each."""
    cards = torch.cuda.device_count() if torch.cuda.is_available() else None
    if cards is not None and processes > cards:
        raise RunError(f"processes is {processes} and this machine has {cards} GPUs: give {cards} or fewer.")


def check_clips(run: Run) -> None:
    """Raise RunError for a data set without clips to train and be scored on, or with clips that are too short.

    ShardError for one whose files are gone or cut short. One clip of each split is read.
    """
    index = ClipIndex(run.dataset_dir)
    for split, why in NEEDED.items():
        if not index.whole(split):
            raise RunError(
                f"{run.dataset_dir} has no clips in its {split} split ({why}): collect some, with towns in that split."
            )
    ends: dict[str, int] = {}
    for row in index.rows:
        ends[row["shard"]] = max(ends.get(row["shard"], 0), row["offset"] + row["bytes"])
    for shard, end in ends.items():
        path = run.dataset_dir / shard
        if index.place.url:
            break  # an object is checked when it is fetched
        if not path.is_file() or path.stat().st_size < end:
            raise RunError(f"{path} is gone or cut short: collect the data set again, which writes it anew.")
    for split in ("train", "val", "test"):
        for row in index.whole(split)[:1]:
            frames = len(read_cameras(index.read(row)["cameras.npz"]).time_s)
            try:
                window_starts(frames, run.preset.video.frames, run.preset.training.clip_start_stride)
            except ValueError as error:
                raise RunError(f"{run.dataset_dir} does not fit preset {run.preset.name}: {error}") from error
