"""Encoding without Ray, for tests of what comes after it."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

from model.codec import load_codec
from model.presets import Preset
from tasks.encoding import encode


def encode_here(dataset_dir: Path, preset: Preset) -> Path:
    """Do what `encode_dataset` does in this process."""

    def encoded(todo, folder, index, given, workers):
        codec = load_codec(given.codec, folder)
        for job in todo:
            yield job, encode.write_shard(job, folder, index, codec, given)

    with patch.object(encode, "encoded", encoded):
        return encode.encode_dataset(dataset_dir, preset)
