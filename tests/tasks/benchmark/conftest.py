"""A painted world, read once, and a detector calibrated on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.codec import LinearCodec
from model.presets import Preset
from tasks.benchmark.detector import FactDetector, calibrated
from tasks.benchmark.scenes import BenchScenes, read_scenes
from tests.painted_world import write_painted_dataset

PRESET = Preset.load("tiny").replace(latent_channels=48, raymap_centroid="first")


@pytest.fixture(scope="session")
def painted(tmp_path_factory) -> Path:
    return write_painted_dataset(tmp_path_factory.mktemp("painted") / "painted", train=2, test=12)


@pytest.fixture(scope="session")
def scenes(painted) -> BenchScenes:
    return read_scenes(painted, PRESET)


@pytest.fixture(scope="session")
def codec(scenes) -> LinearCodec:
    return LinearCodec.fit([scenes.truth.flatten(0, 1), scenes.twin_truth.flatten(0, 1)], 48)


@pytest.fixture(scope="session")
def detector(scenes, codec) -> FactDetector:
    return calibrated(scenes, lambda videos: codec.decode(codec.encode(videos.flatten(0, 1))[0]).view_as(videos))
