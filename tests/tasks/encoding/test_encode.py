"""The latent cache: what is in it, that it is filled once, and that a kill changes nothing."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from infra.storage import sha256_file
from model.codec import load_codec
from model.presets import Preset
from tasks.encoding import encode
from tasks.encoding.encode import encode_dataset
from tasks.encoding.frames import model_video
from tasks.encoding.latents import EncodingError, LatentWindows, latents_key
from tasks.sharding.reader import ClipPairs
from tests.local_encoding import encode_here
from tests.synthetic_dataset import write_dataset

TINY = Preset.load("tiny")


@pytest.fixture(scope="module")
def dataset_dir(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("datasets") / "synthetic")


@pytest.fixture(scope="module")
def latents_dir(dataset_dir):
    """Encoded as users do, by Ray actors."""
    return encode_dataset(dataset_dir, TINY, workers=2)


def files_of(folder):
    return {str(path.relative_to(folder)): sha256_file(path) for path in folder.rglob("*") if path.is_file()}


def test_windows_hold_latents_pictures_and_cameras_of_their_frames(dataset_dir, latents_dir):
    windows, pairs = LatentWindows(latents_dir, "train"), ClipPairs(dataset_dir, "train")
    assert [(window.clip, window.start) for window in (windows[i] for i in range(len(windows)))] == [
        (row["key"], start) for row in pairs.rows for start in (0, 4, 8)
    ]
    window, pair = windows[4], pairs[1]
    video = model_video(pair.videos, TINY.video)[:, :, 4:13]
    mean, _ = load_codec(TINY.codec, latents_dir).encode(video)
    assert window.mean.shape == (2, *TINY.latent_shape)
    assert torch.equal(window.mean, mean.half())
    assert window.logvar is None
    assert (window.first.float() / 127.5 - 1 - video[:, :, 0]).abs().max() <= 0.5 / 127.5 + 1e-6
    assert np.array_equal(window.c2w, pair.cameras.c2w[:, :, 4:13])
    assert np.array_equal(window.K, pair.cameras.K)


def test_validation_windows_hardly_overlap_and_test_is_left_alone(latents_dir):
    assert [row["start"] for row in LatentWindows(latents_dir, "val").rows] == [0, 8, 0, 8]
    assert len(LatentWindows(latents_dir, "test")) == 0


def test_preloaded_windows_are_the_same(latents_dir):
    lazy, kept = LatentWindows(latents_dir, "train"), LatentWindows(latents_dir, "train", preload=True)
    assert kept[3] is kept[3]
    assert torch.equal(lazy[3].mean, kept[3].mean)


def test_a_second_run_encodes_nothing_and_says_so(dataset_dir, latents_dir, monkeypatch):
    monkeypatch.setattr(encode, "encoded", None)
    monkeypatch.setattr(encode, "prepare_codec", None)
    said = []
    before = files_of(latents_dir)
    assert encode_dataset(dataset_dir, TINY, on_progress=lambda *call: said.append(call)) == latents_dir
    assert said == [(6, 6, "encoded already: nothing to do")]
    assert files_of(latents_dir) == before


def test_what_is_missing_is_encoded_again_to_the_same_bytes(dataset_dir, latents_dir, tmp_path):
    copy = tmp_path / "synthetic"
    shutil.copytree(dataset_dir, copy)
    cache = copy / "latents" / latents_dir.name
    before = files_of(cache)
    (cache / "shards/train/train-000001.json").unlink()
    shard = cache / "shards/val/val-000000.tar"
    shard.write_bytes(shard.read_bytes()[:-1024])
    (cache / "shards/train/.tmp-0-train-000001.tar").write_bytes(b"left by a kill")
    (cache / "latents.json").unlink()
    encode_here(copy, TINY)
    assert files_of(cache) == before


@pytest.mark.parametrize(
    "changes", [{"frames": 17}, {"height": 64}, {"views": "front"}, {"latent_channels": 4}, {"clip_start_stride": 0}]
)
def test_the_key_follows_what_determines_latents(changes):
    assert latents_key("digest", TINY.replace(**changes)) != latents_key("digest", TINY)
    assert latents_key("other", TINY) != latents_key("digest", TINY)


def test_the_key_ignores_what_does_not():
    assert latents_key("digest", TINY.replace(seed=7, num_layers=4, train_steps=9)) == latents_key("digest", TINY)


def test_a_corrupt_shard_is_named(latents_dir, tmp_path):
    copy = tmp_path / "latents"
    shutil.copytree(latents_dir, copy)
    shard = copy / "shards/train/train-000000.tar"
    data = bytearray(shard.read_bytes())
    data[700] ^= 1
    shard.write_bytes(data)
    with pytest.raises(EncodingError, match=r"train-000000.tar is corrupt at .*-000-s000: delete .* and encode again"):
        LatentWindows(copy, "train")[0]


def test_unfinished_latents_are_refused(tmp_path):
    with pytest.raises(
        EncodingError, match=r"holds no finished latents \(no latents.json\): encode the data set first"
    ):
        LatentWindows(tmp_path, "train")


@pytest.mark.parametrize("name", ["latents.json", "index.parquet", "shards/train/train-000000.json"])
@pytest.mark.parametrize("text", ["", "[]", "{}", "\0" * 9])
def test_what_is_damaged_beside_whole_shards_is_mended(encoded_here, name, text):
    dataset, cache = encoded_here
    before = files_of(cache)
    (cache / name).write_text(text)
    assert encode_here(dataset, TINY) == cache
    assert files_of(cache) == before


def test_encoding_waits_for_another_that_fills_the_same_cache(encoded_here):
    dataset, cache = encoded_here
    lock = str(cache / "encoding.lock")
    script = f"import fcntl, sys; f = open({lock!r}, 'a'); fcntl.flock(f, 2); print(flush=True); "
    with subprocess.Popen(
        [sys.executable, "-c", script + "sys.stdin.read()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        other.stdout.readline()
        said = []

        def told(done, total, note):
            said.append(note)
            other.stdin.close()  # the other ends

        encode_dataset(dataset, TINY, on_progress=told)
    assert said == ["another run encodes the same: waiting for it", "encoded already: nothing to do"]


@pytest.fixture(scope="module")
def encoded_here(tmp_path_factory):
    """A data set and its latents, made without Ray."""
    dataset = write_dataset(tmp_path_factory.mktemp("here") / "synthetic", train=2, val=1, test=0, frames=9)
    return dataset, encode_here(dataset, TINY)


def test_a_data_set_without_training_clips_is_refused(tmp_path):
    folder = write_dataset(tmp_path / "empty", train=0, val=1, test=0, frames=9)
    with pytest.raises(EncodingError, match="has no clips in its train split"):
        encode_dataset(folder, TINY)


def test_the_linear_codec_is_fitted_once(dataset_dir, latents_dir):
    saved = sha256_file(latents_dir / "codec" / "diffusion_pytorch_model.safetensors")
    (latents_dir / "latents.json").rename(latents_dir / "aside.json")
    encode_here(dataset_dir, TINY)
    (latents_dir / "aside.json").unlink()
    assert sha256_file(latents_dir / "codec" / "diffusion_pytorch_model.safetensors") == saved


@pytest.mark.slow
def test_killed_while_encoding_the_next_run_finishes_with_the_same_bytes(dataset_dir, latents_dir, tmp_path):
    copy = tmp_path / "synthetic"
    shutil.copytree(dataset_dir, copy, ignore=shutil.ignore_patterns("latents"))
    cache = copy / "latents" / latents_dir.name
    script = (
        "from pathlib import Path; from model.presets import Preset; from tasks.encoding.encode import encode_dataset;"
        f"encode_dataset(Path({str(copy)!r}), Preset.load('tiny'), workers=1)"
    )
    victim = subprocess.Popen([sys.executable, "-c", script], start_new_session=True)
    deadline = time.monotonic() + 200
    while not list(cache.glob("shards/*/*.json")):
        assert victim.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(victim.pid, signal.SIGKILL)
    victim.wait()
    assert not (cache / "latents.json").exists()
    encode_dataset(copy, TINY, workers=1)
    assert files_of(cache) == files_of(latents_dir)
