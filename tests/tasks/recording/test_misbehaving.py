"""Servers that fail to launch, crash, hang and drop images: the same data set as from undisturbed ones."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from infra.actor_pool import Recycling
from infra.storage import StorageError
from tasks.recording.errors import RecordingError
from tasks.recording.pool import record_plan
from tasks.sharding.shards import write_shards
from tests.conftest import SPEC
from tests.misbehaving_server import Misbehaving

FAULTS = """silent_exit 0
silent_exit 0
silent_exit 0
crash_tick 9
crash_load 0
late_image 30
drop_image 60
hang_tick 14
crash_tick 25
"""


def planned_copy(tiny, folder: Path) -> Path:
    """The plan of `tiny`, with nothing recorded."""
    for name in ("plan.parquet", "plan.json", "spares.parquet"):
        shutil.copy(tiny.folder / name, folder / name)
    shutil.copytree(tiny.folder / "maps", folder / "maps")
    return folder


def misbehaving(folder: Path, faults: str, **changes) -> Misbehaving:
    folder.mkdir()
    (folder / "faults").write_text(faults)
    return Misbehaving(folder=str(folder), **changes)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_habit_at_once_gives_the_same_digest(tiny, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    (tmp_path / "data").mkdir()
    folder = planned_copy(tiny, tmp_path / "data")
    spec = misbehaving(tmp_path / "faults", FAULTS)
    done = record_plan(folder, spec, servers=2, recycling=Recycling(items=1))
    assert (done.recorded, done.faults, done.rejected) == (2, {}, {})
    assert caplog.text.count("in a row failed, the next in") >= 3
    assert write_shards(folder).digest == tiny.sharding.digest


@pytest.mark.slow
def test_no_server_that_starts_is_one_sentence_with_the_reason(tiny, tmp_path, caplog):
    (tmp_path / "data").mkdir()
    folder = planned_copy(tiny, tmp_path / "data")
    spec = misbehaving(tmp_path / "faults", "silent_exit 0\n" * 100)
    with pytest.raises(RecordingError, match=r"no server can be started: server0 did not start.*code 0") as caught:
        record_plan(folder, spec, servers=1)
    assert "\n" not in str(caught.value)
    assert caplog.text.count("code 0") >= 5


@pytest.fixture
def small_disk(tmp_path):
    """A disk with little room. Skipped where there is none to be had."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
def test_a_disk_that_fills_ends_the_run_in_a_sentence_and_blames_no_server(tiny, small_disk, monkeypatch, caplog):
    folder = planned_copy(tiny, small_disk)
    monkeypatch.setattr("tasks.recording.pool.require_free_space", lambda *given: None)
    room = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
    (folder / "ballast").write_bytes(bytes(room - 150_000))
    with pytest.raises(StorageError, match=r"cannot be written, the disk is full: free some space") as caught:
        record_plan(folder, SPEC, servers=1)
    assert "\n" not in str(caught.value)
    assert "is replaced" not in caplog.text
    (folder / "ballast").unlink()
    done = record_plan(folder, SPEC, servers=1)
    assert not done.faults
    assert write_shards(folder).digest == tiny.sharding.digest
