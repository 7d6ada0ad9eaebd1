"""Files that survive a crash."""

from __future__ import annotations

import pytest

from infra.storage import (
    StorageError,
    atomic_dir,
    atomic_file,
    canonical_json,
    require_free_space,
    sha256_bytes,
    sha256_file,
    sweep_temporary,
)


def test_atomic_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "folder" / "a.txt"
    with pytest.raises(RuntimeError, match="halfway"), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("halfway")
    assert not list(path.parent.iterdir())
    with atomic_file(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert [file.name for file in path.parent.iterdir()] == ["a.txt"]
    assert sha256_file(path) == sha256_bytes(b"whole")


def test_atomic_dir_replaces_only_when_complete(tmp_path):
    path = tmp_path / "clip"
    for content in ("old", "new"):
        with atomic_dir(path) as temporary:
            (temporary / "x").write_text(content)
    with pytest.raises(OSError, match="disk"), atomic_dir(path) as temporary:
        (temporary / "x").write_text("broken")
        raise OSError("disk full")
    assert (path / "x").read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["clip"]


def test_sweep_removes_leftovers_only(tmp_path):
    (tmp_path / ".tmp-1234-a").mkdir()
    (tmp_path / ".tmp-1234-b").write_text("")
    (tmp_path / "kept").write_text("")
    assert sweep_temporary(tmp_path) == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["kept"]


def test_canonical_json_is_one_text_for_equal_values():
    text = '{"a":[1.5,"é"],"b":1}'
    assert canonical_json({"b": 1, "a": [1.5, "é"]}) == canonical_json({"a": [1.5, "é"], "b": 1}) == text
    with pytest.raises(ValueError, match="not JSON"):
        canonical_json(float("nan"))


def test_a_full_disk_is_named_with_what_to_do(tmp_path):
    with pytest.raises(StorageError, match=r"GB free.*SHAREVERSE_HOME"):
        require_free_space(tmp_path, 10**18)


def test_nothing_is_removed_through_a_symbolic_link(tmp_path):
    precious = tmp_path / "precious"
    (precious / ".tmp-1234-mine").mkdir(parents=True)
    (precious / "photo").write_text("x")
    link, folder = tmp_path / "link", tmp_path / "folder"
    link.symlink_to(precious)
    folder.mkdir()
    (folder / ".tmp-1234-b").symlink_to(precious)
    assert sweep_temporary(link) == 0
    assert sweep_temporary(folder) == 1
    with pytest.raises(StorageError, match="link is a symbolic link where a folder is to be written"), atomic_dir(link):
        pass
    assert sorted(path.name for path in precious.iterdir()) == [".tmp-1234-mine", "photo"]


def test_targets_that_are_something_else_are_one_sentence(tmp_path):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="is a file where a folder is to be"), atomic_dir(tmp_path / "file"):
        pass
    with pytest.raises(StorageError, match="folder is a folder where a file"), atomic_file(tmp_path / "folder"):
        pass
    with (
        pytest.raises(StorageError, match=r"cannot be a folder, for .*file is a file: move it away"),
        atomic_file(tmp_path / "file" / "below" / "x"),
    ):
        pass
    assert (tmp_path / "file").read_text() == "kept"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
