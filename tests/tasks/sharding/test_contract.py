"""What must hold in a data set, tried on one whose every hash agrees: the reader and `verify` find what is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from infra.storage import sha256_file
from tasks.evaluation.generate import find_clip
from tasks.sharding import contract
from tasks.sharding.__main__ import main
from tasks.sharding.contract import read_meta_and_cameras
from tasks.sharding.errors import ShardError
from tasks.sharding.index import ClipIndex
from tasks.sharding.reader import ClipPairs
from tasks.sharding.verify import verify
from tests.synthetic_dataset import FPS, write_dataset
from tests.tampering import (
    cameras,
    change_plan,
    change_record,
    change_sample,
    copy_of,
    index_of,
    meta,
    npz,
    write_rows,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Three clips: two of train, one of test, 9 frames of 48x32 views."""
    folder = tmp_path_factory.mktemp("datasets") / "whole"
    write_dataset(folder, train=2, val=0, test=1, frames=9, view_width=48, view_height=32)
    return folder


@pytest.fixture
def changed(whole, tmp_path) -> Path:
    """A copy to be changed."""
    return copy_of(whole, tmp_path / "whole")


def refused(folder: Path, words: str, capsys) -> None:
    """Assert that `verify` ends with one sentence that has these words, and with exit code 1."""
    assert main(["verify", str(folder)]) == 1
    said = capsys.readouterr()
    assert words in said.err
    assert said.err.count("\n") == 1
    assert not said.out


def set_to(name: str, value, *place):
    """Return a change of one array's element."""
    return cameras(lambda arrays: arrays[name].__setitem__(place or ..., value))


def replaced(name: str, change):
    return cameras(lambda arrays: arrays.__setitem__(name, change(arrays[name])))


def scaled_rotation(c2w):
    c2w[..., :3, :3] *= 1.001
    return c2w


def mirrored(c2w):
    return np.diag([1.0, -1, 1, 1]) @ c2w


def moved(c2w):
    c2w[0, 0, 4, 0, 3] += 0.01
    return c2w


def halved_video(members) -> None:
    members["agent1.mp4"] = members["agent1.mp4"][: len(members["agent1.mp4"]) // 2]


def other_video(folder: Path, **size) -> bytes:
    """A video of another data set's clip."""
    write_dataset(folder, train=0, val=0, test=1, **size)
    clip = next(folder.glob("recordings/*/w000"))
    return (clip / "agent0.mp4").read_bytes()


SAMPLES = {
    "fx 0": (set_to("K", 0.0, 0, 0, 0, 0), "has a K that is none"),
    "fx negative": (set_to("K", -24.0, 1, 2, 0, 0), "has a K that is none"),
    "fy not finite": (set_to("K", np.nan, 0, 0, 1, 1), "has a K that is none"),
    "fx huge": (set_to("K", 1e300, 0, 0, 0, 0), "has a K that is none"),
    "skew": (set_to("K", 0.1, 0, 0, 0, 1), "has a K that is none"),
    "K's last row": (set_to("K", 2.0, 0, 0, 2, 2), "has a K that is none"),
    "centre": (set_to("K", 24.5, 1, 3, 0, 2), "has a principal point of (24.5, 16)"),
    "centre huge": (set_to("K", 1e300, 0, 0, 0, 2), "has views of"),
    "three views": (cameras(lambda a: a.update({k: a[k][:, :3] for k in ("K", "c2w", "carla_pose")})), "K of shape"),
    "one agent's cameras": (replaced("K", lambda K: K[:1]), "has c2w of shape"),
    "K of integers": (replaced("K", lambda K: K.astype(np.int64)), "has K of shape [2, 4, 3, 3] int64"),
    "c2w of float32": (replaced("c2w", lambda c2w: c2w.astype(np.float32)), "has c2w of shape"),
    "mirrored": (replaced("c2w", mirrored), "left-handed world"),
    "scaled": (replaced("c2w", scaled_rotation), "no rigid motions"),
    "pose not finite": (set_to("c2w", np.inf, 0, 0, 3, 0, 3), "no finite numbers"),
    "pose far away": (set_to("c2w", 1e9, 0, 0, 3, 0, 3), "from the world's origin"),
    "last row": (set_to("c2w", 0.5, 0, 0, 0, 3, 0), "last row is not 0 0 0 1"),
    "moved": (replaced("c2w", moved), "c2w and carla_pose that differ by 0.01"),
    "carla_pose not finite": (set_to("carla_pose", np.nan, 0, 0, 0, 4), "has a carla_pose"),
    "agent_pose unknown": (set_to("agent_pose", np.nan), "unknown pose or size"),
    "agent_pose huge": (set_to("agent_pose", 1e200, 0, 0, 0), "has agent_pose beyond"),
    "no size": (set_to("agent_extent", 0.0, 0, 0), "has agent_extent that is not above 0"),
    "time backwards": (replaced("time_s", lambda t: t[::-1]), "do not go on by 1/fps"),
    "time stands": (replaced("time_s", lambda t: t * 0), "do not go on by 1/fps"),
    "time unequal": (set_to("time_s", 0.11, 1), "do not go on by 1/fps"),
    "time not finite": (set_to("time_s", np.nan, 1), "do not go on by 1/fps"),
    "fewer frames": (cameras(lambda a: a.update(
        time_s=a["time_s"][:8], c2w=a["c2w"][:, :, :8], carla_pose=a["carla_pose"][:, :, :8],
        agent_pose=a["agent_pose"][:, :8])), "cameras of 8 frames and meta.json says 9"),
    "no time": (cameras(lambda a: a.pop("time_s")), "lacks time_s"),
    "an array of no number": (replaced("K", lambda K: np.full(K.shape, "a")), "has K of shape"),
    "cameras gone": (lambda members: members.pop("cameras.npz"), "lacks cameras.npz"),
    "cameras cut": (lambda members: members.update({"cameras.npz": members["cameras.npz"][:99]}), "no readable arrays"),
    "cameras empty": (lambda members: members.update({"cameras.npz": b""}), "no readable arrays"),
    "fps 0": (meta(fps=0), "says fps 0"),
    "fps negative": (meta(fps=-10.0), "says fps -10.0"),
    "fps huge": (meta(fps=10**400), "says fps 1000"),
    "fps true": (meta(fps=True), "says fps True"),
    "fps text": (meta(fps="10"), "says fps '10'"),
    "another fps": (meta(fps=2 * FPS), "do not go on by 1/fps"),
    "no fps": (meta(fps=None), "does not say 'fps'"),
    "meta not finite": (lambda members: members.update({"meta.json": members["meta.json"].replace(b"10.0", b"1e999")}),
                        "1e999 is too large"),
    "meta no object": (lambda members: members.update({"meta.json": b"[]"}), "holds a JSON list"),
    "meta no UTF-8": (lambda members: members.update({"meta.json": b"\xff{}"}), "no readable JSON"),
    "another town": (meta(town="Elsewhere"), "says town 'Elsewhere' and the index 'Synthetic03'"),
    "another split": (meta(split="train"), "says split 'train' and the index 'test'"),
    "another weather": (meta(weather="hail"), "says weather 'hail'"),
    "another recording": (meta(recording_id="0" * 12), "says recording_id"),
    "another window": (meta(window=9), "says window 9"),
    "views in another order": (meta(views=["rear", "front", "left", "right"]), "says views"),
    "a fact of nothing": (meta(fact={"task": "appearance"}), "says fact {'task'"),
    "frames": (meta(frames=10), "cameras of 9 frames and meta.json says 10"),
    "a town that climbs": (meta(town="../../x"), "says town '../../x'"),
    "a foreign member": (lambda members: members.update({"readme.txt": b"x"}), "holds a foreign member 'readme.txt'"),
    "one agent": (lambda members: [members.pop(name) for name in list(members) if name.startswith("agent1")],
                  "cameras of 2 agents and videos of 1"),
    "a third agent": (lambda members: members.update({"agent2.mp4": members["agent1.mp4"]}), "lacks agent2.depth.mkv"),
    "no video": (lambda members: members.pop("agent0.mp4"), "lacks agent0.mp4"),
    "no depth of one": (lambda members: members.pop("agent1.depth.mkv"), "lacks agent1.depth.mkv"),
    "no depth": (lambda members: [members.pop(f"agent{k}.depth.mkv") for k in (0, 1)], "ground truth is missing"),
}  # fmt: skip
PICTURES = {
    "video cut": (halved_video, "agent1.mp4"),
    "video empty": (lambda members: members.update({"agent0.mp4": b""}), "agent0.mp4: a video cannot be decoded"),
    "depth as ids": (lambda members: members.update({"agent0.instance.mkv": members["agent0.mp4"]}), "or other pixels"),
}


@pytest.mark.parametrize("name", [*SAMPLES, *PICTURES])
def test_a_sample_that_contradicts_itself_is_refused(name, changed, capsys):
    change, words = (SAMPLES | PICTURES)[name]
    key = change_sample(changed, change)
    refused(changed, words, capsys)
    if words != "ground truth is missing":  # what is promised is known to `verify`, from the plan
        with pytest.raises(ShardError):
            find_clip(ClipIndex(changed), key)
        with pytest.raises(ShardError):
            ClipPairs(changed, "test")[0]


def test_videos_of_another_size_or_length_are_not_decoded(changed, tmp_path, capsys):
    for size, words in (
        ({"frames": 9, "view_width": 64}, "it is 128x64 where 96x64 belongs"),
        ({"frames": 17, "view_width": 48}, "of 10 frames and cameras of 9"),
    ):
        data = other_video(tmp_path / words, view_height=32, **size)
        change_sample(changed, lambda members, data=data: members.update({"agent0.mp4": data}))
        refused(changed, words, capsys)


def test_an_untouched_copy_is_whole_whatever_was_written_anew(whole, changed):
    change_sample(changed, lambda members: None)
    assert verify(changed) == 3
    assert ClipIndex(changed).digest == ClipIndex(whole).digest


def rows_with(change):
    def changed(folder):
        rows = index_of(folder)
        write_rows(folder, change(rows) or rows)

    return changed


def exchanged(*names):
    def exchange(rows):
        for name in names:
            rows[0][name], rows[1][name] = rows[1][name], rows[0][name]

    return rows_with(exchange)


def train_as_test(rows):
    for row in rows:
        row["split"] = {"train": "test", "test": "train"}.get(row["split"], row["split"])


INDEX = {
    "half the rows": (rows_with(lambda rows: rows[::2]), "2 rows and the shards 3 samples"),
    "without a shard": (rows_with(lambda rows: rows[:2]), "2 rows and the shards 3 samples"),
    "twice the rows": (rows_with(lambda rows: rows + rows), "6 rows and the shards 3 samples"),
    "no rows": (lambda folder: write_rows(folder, index_of(folder)[:0]), "says clips 0"),
    "relabelled": (rows_with(train_as_test), "row 0 is the first that differs"),
    "swapped keys": (exchanged("key"), "row 0 is the first that differs"),
    "swapped offsets": (exchanged("offset", "bytes", "sha256"), "row 0 is the first that differs"),
    "another weather": (rows_with(lambda rows: rows[2].update(weather="hail")), "row 2 is the first that differs"),
    "a weather of no text": (rows_with(lambda rows: [row.update(weather=3) for row in rows] and rows), "that differs"),
    "a column gone": (rows_with(lambda rows: [row.pop("window") for row in rows] and rows), "that differs"),
}


@pytest.mark.parametrize("name", INDEX)
def test_an_index_that_is_not_that_of_the_shards_is_refused(name, changed, capsys):
    change, words = INDEX[name]
    change(changed)
    refused(changed, words, capsys)


@pytest.mark.parametrize("name", INDEX)
def test_an_index_with_another_hash_is_refused_by_every_reader(name, whole, changed):
    INDEX[name][0](changed)
    shutil.copy(whole / "dataset.json", changed / "dataset.json")
    if sha256_file(changed / "index.parquet") != sha256_file(whole / "index.parquet"):
        with pytest.raises(ShardError, match=r"is not the index that dataset\.json says"):
            ClipIndex(changed)


def other_counts(folder):
    record = json.loads((folder / "dataset.json").read_text())
    change_record(folder, counts=record["counts"] | {"split": {"train": 1, "test": 2}})


RECORD = {
    "digest": (lambda folder: change_record(folder, digest="f" * 64), "says digest ffffffffffff"),
    "no digest": (lambda folder: change_record(folder, digest=None), "says digest None"),
    "clips": (lambda folder: change_record(folder, clips=5), "has 3 rows and dataset.json says 5 clips"),
    "clips as a text": (lambda folder: change_record(folder, clips="4"), "says clips '4'"),
    "counts": (other_counts, "has other counts"),
    "shards": (lambda folder: change_record(folder, shards=[]), "says shards []"),
    "a shard that climbs": (lambda folder: change_record(folder, shards={"../../x.tar": "0" * 64}), "says shards"),
    "index hash": (lambda folder: change_record(folder, index_sha256="0" * 64), "is not the index that dataset.json"),
    "index hash of no kind": (lambda folder: change_record(folder, index_sha256=7), "says index_sha256 7"),
    "missing": (lambda folder: change_record(folder, missing_recordings=["a"]), "says missing_recordings"),
}


@pytest.mark.parametrize("name", RECORD)
def test_a_record_that_was_changed_is_refused(name, changed, capsys):
    change, words = RECORD[name]
    change(changed)
    refused(changed, words, capsys)
    with pytest.raises(ShardError):
        ClipIndex(changed)


def test_a_plan_that_was_changed_is_refused(changed, capsys):
    def relabel(rows):
        rows[0]["town"] = "Elsewhere"

    change_plan(changed, relabel)
    refused(changed, "row 0 is the first that differs", capsys)


def test_shards_in_another_order_than_the_plan_are_refused(changed, capsys):
    change_plan(changed, lambda rows: rows.reverse())
    refused(changed, "the shards of train are not in the plan's order", capsys)


def test_a_planned_recording_that_nobody_speaks_of_is_refused(changed, capsys):
    def add(rows):
        rows.append(rows[0] | {"recording_id": "f" * 12})

    change_plan(changed, add)
    refused(changed, "recording ffffffffffff is neither in the shards nor among the missing", capsys)
    change_record(changed, missing_recordings={"f" * 12: "not recorded yet"})
    assert verify(changed) == 3


def test_a_data_set_without_the_hash_of_its_index_gets_it_once_it_is_found_whole(whole, changed, capsys):
    record = json.loads((changed / "dataset.json").read_text())
    del record["index_sha256"]
    (changed / "dataset.json").write_text(json.dumps(record, indent=1))
    with pytest.raises(ShardError, match=r"run `python -m tasks\.sharding verify .*` once"):
        ClipIndex(changed)
    assert verify(changed) == 3
    assert ClipIndex(changed).record == ClipIndex(whole).record


def test_the_description_is_read_in_a_few_milliseconds(whole):
    """So that it can be checked whenever a pair is read: decoding these tiny videos takes ten times as long."""
    import time

    index = ClipIndex(whole)
    members = index.read(index.rows[0])
    start = time.process_time()
    for _ in range(10):
        read_meta_and_cameras(index.rows[0]["key"], members)
    assert time.process_time() - start < 0.5


def test_a_bomb_is_refused_by_its_declared_size(changed, monkeypatch, capsys):
    monkeypatch.setattr(contract, "MAX_CAMERA_BYTES", 10**6)
    change_sample(changed, lambda members: members.update({"cameras.npz": npz({"K": np.zeros(10**6)})}))
    refused(changed, "declares 8000128 bytes, more than 1000000", capsys)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("dataset.json", "no finished data set"),
        ("index.parquet", "index.parquet cannot be read"),
        ("plan.parquet", "plan.parquet cannot be read"),
        ("shards/test/test-000000.tar", "test-000000.tar cannot be read"),
    ],
)
def test_what_is_gone_or_no_file_is_named(path, words, changed, capsys):
    (changed / path).unlink()
    refused(changed, words, capsys)
    if path != "dataset.json":
        (changed / path).mkdir()
        refused(changed, "it is no file", capsys)
