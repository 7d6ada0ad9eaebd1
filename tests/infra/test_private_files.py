"""State, secrets and settings are readable by their owner alone."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from infra.private_files import private_folder, read_or_create_secret, restrict_home, write_private
from infra.storage import StorageError


@pytest.fixture
def loose():
    """The umask that lets everybody read."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_new_folders_and_files_are_private_whatever_the_umask(tmp_path, loose):
    assert mode(private_folder(tmp_path / "a" / "b")) == 0o700
    assert mode(tmp_path / "a") == 0o700
    (tmp_path / "a" / "b").rmdir()
    write_private(tmp_path / "a" / "file", "text")
    assert mode(tmp_path / "a" / "file") == 0o600
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["file"]


def test_a_home_of_an_earlier_version_is_closed(tmp_path, monkeypatch, loose):
    monkeypatch.setenv("SHAREVERSE_HOME", str(tmp_path))
    deep = tmp_path / "datasets" / "demo" / "shards"
    deep.mkdir(parents=True)
    (deep / "a.tar").write_text("")
    (deep / "script").write_text("")
    (deep / "script").chmod(0o755)
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.write_text("")
    (tmp_path / "datasets" / "link").symlink_to(outside)
    restrict_home()
    assert [oct(mode(path)) for path in (tmp_path, deep, deep / "a.tar", deep / "script")] == [
        "0o700", "0o700", "0o600", "0o700"
    ]  # fmt: skip
    assert mode(outside) == 0o666


def test_a_folder_that_holds_other_things_stays_as_open_as_it_was(tmp_path, monkeypatch, loose):
    monkeypatch.setenv("SHAREVERSE_HOME", str(tmp_path))
    tmp_path.chmod(0o755)
    (tmp_path / "services").mkdir()
    (tmp_path / "photographs").mkdir()
    restrict_home()
    assert mode(tmp_path) == 0o755
    assert mode(tmp_path / "services") == 0o700
    assert mode(tmp_path / "photographs") == 0o777


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_another_users_folder_is_refused(tmp_path):
    os.chown(tmp_path, 65534, 65534)
    with pytest.raises(StorageError, match="belongs to user 65534"):
        private_folder(tmp_path)


def test_two_that_draw_a_secret_at_once_get_the_same(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        drawn = set(pool.map(lambda number: read_or_create_secret(tmp_path / "secret", f"word{number}"), range(40)))
    assert len(drawn) == 1
    assert mode(tmp_path / "secret") == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_a_secret_that_others_could_read_is_closed(tmp_path):
    (tmp_path / "secret").write_text("old\n")
    (tmp_path / "secret").chmod(0o644)
    assert read_or_create_secret(tmp_path / "secret", "new") == "old"
    assert mode(tmp_path / "secret") == 0o600


def test_a_secret_that_cannot_be_read_is_one_sentence(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "bytes").write_bytes(b"\xff")
    for name in ("folder", "bytes"):
        with pytest.raises(StorageError, match=rf"{name} .*make down"):
            read_or_create_secret(tmp_path / name, "new")
