"""A small data set with latents, and runs on it."""

from __future__ import annotations

import pytest

from model.presets import Preset
from tasks.runs.run import create_run
from tests.local_encoding import encode_here
from tests.synthetic_dataset import write_dataset

TINY = Preset.load("tiny")
BASE = {
    "num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 16, "out_channels": 8, "num_layers": 2,
    "time_embed_dim": 16, "text_embed_dim": 8, "max_text_seq_length": 1, "patch_size": 1, "sample_height": 4,
    "sample_width": 6, "sample_frames": 9, "use_rotary_positional_embeddings": True,
}  # fmt: skip
"""Of a CogVideoX that fits it."""


@pytest.fixture(scope="session")
def state(tmp_path_factory):
    """A state folder with the data set `synthetic`, its latents made for the preset `tiny`."""
    folder = tmp_path_factory.mktemp("state")
    latents = encode_here(write_dataset(folder / "datasets" / "synthetic"), TINY)
    return folder, latents


@pytest.fixture
def new_run(state, monkeypatch):
    """Make runs of `tiny` with changes; returns the run and its latents."""
    monkeypatch.setenv("SHAREVERSE_HOME", str(state[0]))
    return lambda name="", **changes: (create_run("synthetic", TINY.replace(**changes), name), state[1])
