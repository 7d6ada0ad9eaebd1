"""The ledger: what is done stays done, what a crash hid is found again, what is damaged is made again."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from infra.storage import StorageError, sha256_bytes
from tasks.recording.errors import RecordingError
from tasks.recording.ledger import FAILED_RUNS, Ledger

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path)
    yield ledger
    ledger.close()


def finish(ledger: Ledger, recording_id: str, text: str = "x") -> None:
    """Let a recording's folder appear, as the recorder does with its last rename."""
    record = ledger.record_file(recording_id)
    record.parent.mkdir(parents=True, exist_ok=True)
    (record.parent / "clip.mp4").write_text(text)
    files = {"clip.mp4": sha256_bytes(text.encode())}
    record.write_text(json.dumps({"recording_id": recording_id, "files": files, "scores": {}}))


def test_done_means_that_the_artefact_is_there(ledger):
    assert not ledger.is_done("a")
    finish(ledger, "a")
    ledger.mark_done("a")
    assert ledger.is_done("a")
    (ledger.record_file("a").parent / "clip.mp4").unlink()
    assert not ledger.is_done("a")
    finish(ledger, "a")
    assert ledger.is_done("a")
    ledger.record_file("a").unlink()
    assert not ledger.is_done("a")


def test_a_crash_between_rename_and_entry_loses_nothing(ledger):
    finish(ledger, "a")  # and the driver died before ledger.mark_done
    assert ledger.is_done("a")
    rows = ledger.database.execute("SELECT recording_id, state FROM recordings").fetchall()
    assert rows == [("a", "done")]


def test_a_lost_ledger_is_made_from_the_artefacts(ledger, tmp_path):
    finish(ledger, "a")
    ledger.mark_done("a")
    ledger.close()
    for file in tmp_path.glob("ledger.*"):
        file.unlink()
    again = Ledger(tmp_path)
    assert again.is_done("a")
    again.close()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"recording_id": "b", "files": {}}', '{"recording_id": "a"}', "\0\0"])
def test_a_record_that_is_none_is_made_again(ledger, text, caplog):
    finish(ledger, "a")
    ledger.record_file("a").write_text(text)
    assert not ledger.is_done("a")
    assert "Recording a is made again: " in caplog.text


def test_a_clip_that_was_changed_before_it_was_entered_is_made_again(ledger):
    finish(ledger, "a")
    (ledger.record_file("a").parent / "clip.mp4").write_text("changed")
    assert not ledger.is_done("a")


def test_one_writer_at_a_time(ledger, tmp_path):
    with pytest.raises(RecordingError, match=r"another run is recording into .*: wait until it ends"):
        Ledger(tmp_path)
    ledger.close()
    Ledger(tmp_path).close()


def test_a_changed_artefact_is_not_done(ledger):
    finish(ledger, "a")
    ledger.mark_done("a")
    finish(ledger, "a", text="changed")
    assert not ledger.is_done("a")


def test_a_record_or_clip_that_claims_a_terabyte_is_not_read(ledger):
    for recording_id, entered in (("a", False), ("b", True)):
        finish(ledger, recording_id)
        if entered:
            ledger.mark_done(recording_id)
        os.truncate(ledger.record_file(recording_id), 2**40)
        assert not ledger.is_done(recording_id)
    finish(ledger, "c")
    os.truncate(ledger.record_file("c").parent / "clip.mp4", 2**40)
    assert not ledger.is_done("c")


def test_a_failure_is_open_until_it_succeeds(ledger):
    ledger.mark_failed("a", "the server died")
    assert not ledger.is_done("a")
    assert ledger.reasons("failed") == {"a": "the server died"}
    finish(ledger, "a")
    assert ledger.is_done("a")
    assert ledger.reasons("failed", "rejected", "quarantined") == {}


def test_three_failures_in_a_row_are_a_quarantine(ledger):
    ledger.mark_rejected("a", "a view is black")
    for run in range(FAILED_RUNS):
        assert ledger.reasons("quarantined") == {}
        ledger.mark_failed("b", f"no image {run}")
    assert ledger.reasons("failed") == {}
    assert ledger.reasons("rejected") == {"a": "a view is black"}
    assert ledger.reasons("quarantined") == {"b": f"no image {FAILED_RUNS - 1}"}
    assert ledger.release_quarantined() == 1
    assert list(ledger.reasons("failed")) == ["b"]
    ledger.mark_failed("b", "no image again")
    assert list(ledger.reasons("failed")) == ["b"]  # it has three runs again


def test_a_success_forgets_the_failures_before_it(ledger):
    ledger.mark_failed("a", "no image")
    ledger.mark_failed("a", "no image")
    finish(ledger, "a")
    ledger.mark_done("a")
    ledger.mark_failed("a", "no image")
    assert list(ledger.reasons("failed")) == ["a"]


def as_garbage(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 64)


def as_half(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def as_flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[100:4000] = os.urandom(3900)
    path.write_bytes(data)


def as_directory(path: Path) -> None:
    path.unlink()
    (path / "inside").mkdir(parents=True)


def as_other_table(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as base:
        base.execute("CREATE TABLE recordings (id INTEGER, what TEXT)")
    base.close()


def as_wrong_types(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as base:
        base.execute("CREATE TABLE recordings (recording_id, state, sha256, attempts, reason, changed)")
        base.execute("INSERT INTO recordings VALUES ('a', 'done', 7, 'often', x'ff', 0)")
    base.close()


def as_undecodable(path: Path) -> None:
    with sqlite3.connect(path) as base:
        base.execute("UPDATE recordings SET reason = CAST(x'ff00ff' AS TEXT)")
    base.close()


def as_text(path: Path) -> None:
    path.write_text("recordings: a\n")


@pytest.mark.parametrize(
    "damage",
    [as_garbage, as_half, as_flipped, as_directory, as_other_table, as_wrong_types, as_undecodable, as_text],
)
def test_a_damaged_ledger_is_put_aside_and_made_again(ledger, tmp_path, caplog, damage):
    finish(ledger, "a")
    ledger.mark_done("a")
    for number in range(200):
        ledger.mark_failed(f"b{number}", "no image " * 20)
    ledger.close()
    damage(tmp_path / "ledger.sqlite")
    again = Ledger(tmp_path, logging.getLogger("told"))
    assert caplog.text.count("was put aside as ledger.sqlite.damaged-1; a new ledger is made") == 1
    assert (tmp_path / "ledger.sqlite.damaged-1").exists()
    assert again.reasons("failed") == {}
    assert again.is_done("a")
    again.close()
    damage(tmp_path / "ledger.sqlite")
    Ledger(tmp_path).close()
    assert (tmp_path / "ledger.sqlite.damaged-2").exists()


@pytest.mark.parametrize("name", ["ledger.sqlite-wal", "ledger.sqlite-shm"])
def test_what_lies_beside_a_damaged_ledger_goes_with_it(ledger, tmp_path, name):
    finish(ledger, "a")
    ledger.mark_done("a")
    ledger.close()
    (tmp_path / name).mkdir()
    again = Ledger(tmp_path)
    assert again.is_done("a")
    again.close()
    assert (tmp_path / f"ledger.sqlite.damaged-1{name.removeprefix('ledger.sqlite')}").is_dir()


def test_an_empty_file_is_a_new_ledger(tmp_path):
    (tmp_path / "ledger.sqlite").touch()
    Ledger(tmp_path).close()
    assert not list(tmp_path.glob("*.damaged*"))


@pytest.mark.parametrize(
    ("number", "kind", "sentence"),
    [
        (errno.EWOULDBLOCK, RecordingError, "another run is recording into"),
        (errno.ENOLCK, StorageError, "its file system has no locks: set SHAREVERSE_HOME to a folder on a local disk"),
        (errno.ENOTSUP, StorageError, "its file system has no locks"),
        (errno.EINVAL, StorageError, "its file system has no locks"),
        (errno.EIO, StorageError, "the disk reports an input/output error"),
    ],
)
def test_locks_that_fail_say_why(tmp_path, monkeypatch, number, kind, sentence):
    def refuse(file, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(kind, match=sentence) as caught:
        Ledger(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_ledger_that_another_program_holds_is_not_damaged(ledger, tmp_path, monkeypatch):
    ledger.close()
    holder = sqlite3.connect(tmp_path / "ledger.sqlite")
    holder.execute("PRAGMA locking_mode=EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda path, **options: connect(path, timeout=0.1, **options))
    with pytest.raises(RecordingError, match=r"another program has .* open"):
        Ledger(tmp_path)
    holder.close()
    assert not list(tmp_path.glob("*.damaged*"))


@pytest.fixture
def small_disk(tmp_path):
    """A disk of one megabyte. Skipped where there is none to be had."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Leave no byte free; return the file to delete for room."""
    path = folder / "ballast"
    with open(path, "wb", 0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(bytes(4096))
    return path


def test_a_full_disk_is_one_true_sentence_and_nothing_is_lost(small_disk):
    ledger = Ledger(small_disk)
    finish(ledger, "a")
    ledger.mark_done("a")
    ballast = fill(small_disk)
    with pytest.raises(StorageError, match=r"cannot be written, the disk is full: free some space") as caught:
        for number in range(1000):
            ledger.mark_failed(f"b{number}", "no image " * 50)
    assert "\n" not in str(caught.value)
    ledger.close()
    ballast.unlink()
    again = Ledger(small_disk)
    assert again.is_done("a")
    again.close()
    assert not list(small_disk.glob("*.damaged*"))


def test_a_read_only_disk_is_one_true_sentence(small_disk):
    Ledger(small_disk).close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StorageError, match="the disk is read-only: set SHAREVERSE_HOME to a folder on a disk that can"):
        Ledger(small_disk)


WITHOUT_RIGHTS = """
import os, sys
from pathlib import Path
from tasks.recording.ledger import Ledger
os.setuid(65534)
try:
    Ledger(Path(sys.argv[1]))
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_folder_of_somebody_else_is_one_true_sentence(tmp_path):
    Ledger(tmp_path).close()
    command = [sys.executable, "-c", WITHOUT_RIGHTS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert done.stdout.startswith("StorageError"), done.stdout + done.stderr
    assert "permission denied: give this user write access" in done.stdout
