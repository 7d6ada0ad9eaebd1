import io
import json
import os
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra import reading
from infra.reading import read_json, read_npz, read_parquet, read_part, read_sha256
from infra.storage import StorageError, sha256_bytes


class Refused(RuntimeError):
    """The caller's own class."""


@pytest.fixture
def npz():
    file = io.BytesIO()
    np.savez(file, K=np.eye(3), names=np.array(["a", "b"]))
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "no readable JSON"),
        (b'{"a": 1', "no readable JSON"),
        (b"\xff\xfe{}", "no readable JSON"),
        (b'{"a": NaN}', "NaN is not a number of JSON"),
        (b'{"a": 1e999}', "1e999 is too large"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "no readable JSON"),
        (b"[1, 2]", "holds a JSON list where a dict belongs"),
        (b"[" * 100_000, "no readable JSON"),
    ],
)
def test_damaged_json_gets_one_sentence(tmp_path, content, says):
    path = tmp_path / "dataset.json"
    path.write_bytes(content)
    with pytest.raises(Refused, match=says) as error:
        read_json(path, "record it again.", error=Refused)
    assert str(path) in str(error.value)
    assert str(error.value).endswith("record it again.")
    assert "\n" not in str(error.value)


def test_json_is_read_as_the_kind_asked_for(tmp_path):
    path = tmp_path / "list.json"
    path.write_text(json.dumps([1, 2]))
    assert read_json(path, "", kind=list) == [1, 2]


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    for path in (tmp_path / "gone", tmp_path):
        for read in (read_json, read_parquet):
            with pytest.raises(StorageError, match=r"cannot be read \(.*\): make it"):
                read(path, "make it.")


def test_what_is_no_plain_file_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    (tmp_path / "itself").symlink_to("itself")
    for path in tmp_path.iterdir():
        for read in (read_json, read_parquet, read_sha256):
            with pytest.raises(StorageError, match=r"cannot be read \(.*\): make it"):
                read(path, "make it.")
    with pytest.raises(StorageError, match="cannot be read"):
        read_json(tmp_path / "nul\0", "make it.")


def test_an_error_class_that_is_a_value_error_is_raised_once(tmp_path):
    class Wrong(ValueError):
        pass

    with pytest.raises(Wrong, match=r"^\S+ cannot be read \(it is no file\): make it\.$"):
        read_json(tmp_path, "make it.", error=Wrong)


def test_files_larger_than_memory_are_refused_by_their_size(tmp_path):
    path = tmp_path / "sparse"
    path.touch()
    os.truncate(path, 2**40)
    for read in (read_json, read_sha256):
        with pytest.raises(StorageError, match="has 1099511627776 bytes, more than"):
            read(path, "make it.")


def test_a_part_of_a_file_is_there_or_missed(tmp_path):
    path = tmp_path / "shard"
    path.write_bytes(b"abcdef")
    assert read_part(path, 2, 3, "") == b"cde"
    assert read_sha256(path, "") == sha256_bytes(b"abcdef")
    with pytest.raises(StorageError, match="has 6 bytes and should have 7 or more"):
        read_part(path, 2, 5, "make it.")


def test_more_rows_than_memory_holds_are_refused_by_their_number(tmp_path, monkeypatch):
    path = tmp_path / "index.parquet"
    pq.write_table(pa.table({"key": ["a"] * 1000}), path)
    monkeypatch.setattr(reading, "MAX_ROWS", 999)
    with pytest.raises(StorageError, match="declares 1000 rows"):
        read_parquet(path, "write it again.")


def test_a_parquet_file_that_lacks_a_column_is_refused(tmp_path):
    path = tmp_path / "index.parquet"
    pq.write_table(pa.Table.from_pylist([{"key": "a"}]), path)
    assert read_parquet(path, "", ["key"]) == [{"key": "a"}]
    with pytest.raises(StorageError, match="lacks the column 'split'"):
        read_parquet(path, "write it again.", ["key", "split"])


@settings(deadline=None)
@given(st.data())
def test_a_damaged_parquet_file_is_read_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("parquet") / "index.parquet"
    pq.write_table(pa.Table.from_pylist([{"key": str(k), "n": k} for k in range(20)]), path)
    path.write_bytes(damaged(path.read_bytes(), data))
    said = "write it again."
    try:
        read_parquet(path, said)
    except StorageError as error:
        said = str(error)
    assert "write it again." in said


def test_arrays_come_back(npz):
    arrays = read_npz(npz, "cameras.npz", "")
    assert (arrays["K"] == np.eye(3)).all()
    assert arrays["names"].tolist() == ["a", "b"]


@settings(deadline=None)
@given(st.data())
def test_a_damaged_archive_is_read_or_refused(data):
    file = io.BytesIO()
    np.savez_compressed(file, K=np.arange(300.0))
    said = "record it again."
    try:
        read_npz(damaged(file.getvalue(), data), "cameras.npz", said, error=Refused)
    except Refused as error:
        said = str(error)
    assert "record it again." in said


def test_a_zip_bomb_is_refused_by_its_declared_size():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("K.npy", bytes(2**22))
    with pytest.raises(StorageError, match="declares 4194304 bytes, more than 1000"):
        read_npz(file.getvalue(), "cameras.npz", "", max_bytes=1000)


def test_a_header_that_promises_more_than_there_is_is_refused():
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (2**40,)})
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("K.npy", header.getvalue())
    with pytest.raises(StorageError, match="promises"):
        read_npz(file.getvalue(), "cameras.npz", "")


def test_pickles_are_refused():
    file = io.BytesIO()
    np.savez(file, K=np.array([{}], dtype=object))
    with pytest.raises(StorageError, match="no readable arrays"):
        read_npz(file.getvalue(), "cameras.npz", "")


def damaged(content: bytes, data) -> bytes:
    """Cut the content short, or change up to eight of its bytes."""
    if data.draw(st.booleans()):
        return content[: data.draw(st.integers(0, len(content) - 1))]
    changed = bytearray(content)
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=8)):
        changed[place] = data.draw(st.integers(0, 255))
    return bytes(changed)
