"""A small data set, and a run on it whose checkpoint is a model at its random start."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.build import build_transformer
from model.codec import LinearCodec
from model.presets import Preset
from tasks.evaluation.report.write import latents_dir_of
from tasks.evaluation.scoring.windows import Windows
from tasks.runs.run import Run, create_run
from tasks.sharding.reader import ClipIndex
from tests.synthetic_dataset import write_dataset


@pytest.fixture(scope="session")
def toy_home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def fake_run(toy_home) -> Run:
    """A tiny run in `toy_home` with a checkpoint at its last step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHAREVERSE_HOME", str(toy_home))
        write_dataset(toy_home / "datasets" / "toy", train=2, val=1, test=3, view_width=48, view_height=32)
        run = create_run("toy", Preset.load("tiny"))
        add_checkpoint(run, run.preset.training.train_steps)
        rows = ClipIndex(run.dataset_dir).split("train")
        videos = Windows(run.dataset_dir, rows, run.preset).video([0, 1])
        LinearCodec.fit([videos.flatten(0, 1)], run.preset.codec.latent_channels).save_pretrained(
            latents_dir_of(run) / "codec"
        )
    return run


def add_checkpoint(run: Run, step: int) -> None:
    folder = run.folder / "checkpoints" / f"step-{step:06d}"
    build_transformer(run.preset).save_pretrained(folder / "model")
    (folder / "trainer.json").write_text("{}")


@pytest.fixture
def run(fake_run, toy_home, monkeypatch) -> Run:
    """The fake run, with its home in this test's environment."""
    monkeypatch.setenv("SHAREVERSE_HOME", str(toy_home))
    monkeypatch.delenv("SHAREVERSE_ALEXNET", raising=False)
    return fake_run
