"""Shards: a pure function of plan and recordings, whole or not there, readable by anyone."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections import namedtuple
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from infra.storage import StorageError, sha256_file
from tasks.sharding import __main__ as command_line
from tasks.sharding.reader import ClipIndex, ClipPairs, ResumableSampler, members_of
from tasks.sharding.shards import ShardError, write_shards
from tasks.sharding.verify import verify

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def copy(tiny, tmp_path):
    """A copy that may be damaged, without its shards."""
    folder = tmp_path / "tiny"
    shutil.copytree(tiny.folder, folder, ignore=shutil.ignore_patterns("shards", "index.parquet", "dataset.json"))
    return folder


def hashes(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_file(path) for path in sorted(folder.rglob("*.tar"))}


def test_two_writers_give_the_same_bytes_and_the_same_digest(tiny, copy):
    for recording in copy.glob("recordings/*"):
        os.utime(recording / "recording.json", (1, 1))
    assert write_shards(copy).digest == tiny.sharding.digest
    assert hashes(copy) == hashes(tiny.folder)
    assert (copy / "index.parquet").read_bytes() == (tiny.folder / "index.parquet").read_bytes()


def test_a_second_run_keeps_everything(copy):
    first = write_shards(copy)
    before = {path: path.stat().st_mtime_ns for path in copy.glob("shards/**/*.tar")}
    second = write_shards(copy)
    assert (first.written, first.kept, second.written, second.kept) == (2, 0, 0, 2)
    assert before == {path: path.stat().st_mtime_ns for path in copy.glob("shards/**/*.tar")}


def test_headers_hold_nothing_of_this_machine(tiny):
    for path in tiny.folder.glob("shards/*/*.tar"):
        with tarfile.open(path) as tar:
            members = tar.getmembers()
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {
            (0, 0, 0, "shareverse", "shareverse", 0o644)
        }
        assert {m.name.partition(".")[2] for m in members} >= {"agent0.mp4", "agent1.mp4", "cameras.npz", "meta.json"}


def test_the_index_locates_every_sample(tiny):
    rows = pq.read_table(tiny.folder / "index.parquet").to_pylist()
    assert [row["window"] for row in rows] == [0, 9, 0, 9]
    assert [row["split"] for row in rows] == ["train", "train", "test", "test"]
    assert {row["town"] for row in rows if row["split"] == "test"} == {"Mini02"}
    index = ClipIndex(tiny.folder)
    for row in rows:
        members = index.read(row)
        meta = json.loads(members["meta.json"])
        assert f"{meta['recording_id']}-{meta['window']:03d}" == row["key"]
        assert ("agent0.depth.mkv" in members) is (row["split"] == "test")


def test_dataset_json_says_what_made_it(tiny):
    record = json.loads((tiny.folder / "dataset.json").read_text())
    assert record["counts"]["town"] == {"Mini01": 2, "Mini02": 2}
    assert record["versions"]["carla"] == "0.9.16"
    assert record["git_sha"]
    assert record["missing_recordings"] == {}
    assert record["shards"] == hashes(tiny.folder)


def test_plain_webdataset_reads_them(tiny):
    import webdataset

    path = next(tiny.folder.glob("shards/test/*.tar"))
    samples = list(webdataset.WebDataset(str(path), shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == [row["key"] for row in ClipIndex(tiny.folder).split("test")]
    for sample in samples:
        assert {"agent0.mp4", "agent1.depth.mkv", "agent1.instance.mkv", "cameras.npz", "meta.json"} <= set(sample)
        assert np.load(io.BytesIO(sample["cameras.npz"]), allow_pickle=False)["K"].shape == (2, 4, 3, 3)


def test_verify_reads_everything(tiny, capsys, monkeypatch):
    assert verify(tiny.folder) == 4
    monkeypatch.setattr(sys, "argv", ["sharding", "verify", str(tiny.folder)])
    assert command_line.main() == 0
    assert capsys.readouterr().out == "4 clip pairs are whole.\n"


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0xFF
    path.write_bytes(data)


def test_a_corrupt_shard_is_named_and_written_again(copy, capsys, monkeypatch):
    write_shards(copy)
    before = hashes(copy)
    index = ClipIndex(copy)
    row = index.split("test")[1]
    path = copy / row["shard"]
    flip(path, row["offset"] + 700)
    with pytest.raises(ShardError, match=rf"{row['shard']} is corrupt at sample {row['key']}: delete it and collect"):
        index.read(row)
    index.read(index.split("test")[0])  # the sample beside it is whole
    monkeypatch.setattr(sys, "argv", ["sharding", "verify", str(copy)])
    assert command_line.main() == 1
    assert f"{row['shard']} is not what dataset.json says" in capsys.readouterr().err
    again = write_shards(copy)
    assert (again.written, again.kept) == (1, 1)
    assert hashes(copy) == before


def test_a_lost_shard_is_written_again(copy):
    write_shards(copy)
    before = hashes(copy)
    next(copy.glob("shards/train/*.tar")).unlink()
    assert write_shards(copy).written == 1
    assert hashes(copy) == before


def tar_of(name: str, kind: bytes = tarfile.REGTYPE) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, "/etc/passwd"
        tar.addfile(member, io.BytesIO(b""))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("other-000.meta.json", tarfile.REGTYPE),
        ("key-000.../../meta.json", tarfile.REGTYPE),
        ("key-000", tarfile.REGTYPE),
        ("key-000.meta.json", tarfile.SYMTYPE),
        ("key-000.meta.json", tarfile.FIFOTYPE),
    ],
)
def test_foreign_members_are_refused(name, kind):
    with pytest.raises(ShardError, match="sample key-000 holds a foreign member"):
        members_of(tar_of(name, kind), "key-000")


def test_bytes_that_are_no_tar_are_one_sentence():
    with pytest.raises(ShardError, match=r"sample key-000 is no readable tar .*: write the shards again"):
        members_of(bytes(range(256)) * 10, "key-000")


def test_a_damaged_clip_is_named_before_it_is_packed(copy):
    clip = next(copy.glob("recordings/*/w009/agent1.mp4"))
    flip(clip, 100)
    with pytest.raises(ShardError, match=r"agent1\.mp4 is damaged or gone: delete .* and collect again"):
        write_shards(copy)
    assert not (copy / "dataset.json").exists()


def test_a_missing_recording_leaves_a_hole_and_its_reason(copy):
    from tasks.recording.ledger import Ledger

    rows = pq.read_table(copy / "plan.parquet").to_pylist()
    gone = next(row["recording_id"] for row in rows if row["split"] == "train")
    shutil.rmtree(copy / "recordings" / gone)
    ledger = Ledger(copy)
    ledger.mark_rejected(gone, "Mini01, crossing, clear_noon: a view is black: luminance 2, limit 6.")
    ledger.close()
    summary = write_shards(copy, samples_per_shard=1)
    assert list(summary.missing) == [gone]
    assert "a view is black" in json.loads((copy / "dataset.json").read_text())["missing_recordings"][gone]
    assert sorted(path.name for path in copy.glob("shards/*/*.tar")) == ["test-000000.tar", "test-000001.tar"]


def test_nothing_recorded_and_bad_sizes_are_one_sentence(copy):
    with pytest.raises(ShardError, match="samples_per_shard is 0: give 1 or more"):
        write_shards(copy, samples_per_shard=0)
    shutil.rmtree(copy / "recordings")
    with pytest.raises(ShardError, match="has no recorded clips: run collect-dataset first"):
        write_shards(copy)
    with pytest.raises(ShardError, match=r"is no finished data set \(no dataset.json\): run collect-dataset first"):
        ClipPairs(copy, "train")


def test_a_full_disk_loses_nothing(copy, monkeypatch):
    write_shards(copy, samples_per_shard=1)
    before = hashes(copy)
    path = min(copy.glob("shards/train/*.tar"))
    path.unlink()
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as full:
        full.setattr(shutil, "disk_usage", lambda path: usage(1000, 900, 100))
        with pytest.raises(StorageError, match="free some space or set SHAREVERSE_HOME"):
            write_shards(copy, samples_per_shard=1)
    write_shards(copy, samples_per_shard=1)
    assert hashes(copy) == before


CRASH_EVERYWHERE = """
import os, shutil, signal, sys
from pathlib import Path
from infra.storage import sha256_file
from tasks.sharding.shards import write_shards

source, work = Path(sys.argv[1]), Path(sys.argv[2])
wanted = {p.relative_to(source): sha256_file(p) for p in source.rglob("*.tar")}
real = {name: getattr(os, name) for name in ("replace", "fsync")}

def die_at(crash):
    calls = 0
    def counted(name):
        def call(*arguments):
            nonlocal calls
            calls += 1
            if calls == crash:
                os.kill(os.getpid(), signal.SIGKILL)
            return real[name](*arguments)
        return call
    for name in real:
        setattr(os, name, counted(name))

crash, killed = 1, True
while killed:
    folder = work / str(crash)
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("shards", "index.parquet", "dataset.json"))
    child = os.fork()
    if child == 0:
        die_at(crash)
        write_shards(folder)
        os._exit(0)
    killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
    assert not killed or not (folder / "dataset.json").exists() or crash > 15, crash
    write_shards(folder)
    found = {p.relative_to(folder): sha256_file(p) for p in folder.rglob("*.tar")}
    assert found == wanted, crash
    assert not list(folder.rglob(".tmp-*")), crash
    shutil.rmtree(folder)
    crash += 1
print(crash - 2)
"""


def test_killed_anywhere_the_next_run_writes_the_same_bytes(tiny, tmp_path):
    """SIGKILL before every rename and every sync, one after another."""
    command = [sys.executable, "-c", CRASH_EVERYWHERE, str(tiny.folder), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=200)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 12


@pytest.mark.parametrize("consumed", [0, 1, 6, 7, 20])
def test_the_sampler_resumes_exactly(consumed):
    whole = iter(ResumableSampler(7, seed=3))
    everything = [next(whole) for _ in range(35)]
    resumed = ResumableSampler(7, seed=3, consumed=consumed)
    rest = iter(resumed)
    assert [next(rest) for _ in range(35 - consumed)] == everything[consumed:]
    assert resumed.consumed == 35
    for epoch in range(5):
        assert sorted(everything[7 * epoch : 7 * epoch + 7]) == list(range(7))
    assert everything[:7] != everything[7:14]


def test_an_empty_split_cannot_be_sampled():
    with pytest.raises(ShardError, match="split is empty"):
        ResumableSampler(0, seed=0)
