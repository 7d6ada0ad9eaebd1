"""A small data set with latents, and runs on it."""

from __future__ import annotations

import pytest

from model.presets import Preset
from tasks.runs.run import create_run
from tests.local_encoding import encode_here
from tests.synthetic_dataset import write_dataset

TINY = Preset.load("tiny")


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
