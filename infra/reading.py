"""Reads files that may be damaged. Errors are one sentence: which file, what is wrong, and what to do.

Every reader takes `advice`, what the user should do about a bad file of that kind, and `error`, the class to raise.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from infra.storage import StorageError

if TYPE_CHECKING:
    import pyarrow as pa

MAX_FILE_BYTES = 2**32
"""Largest file that is read into memory."""
MAX_NPZ_BYTES = 2**30
"""Largest total size of an .npz's arrays, unless told otherwise: more is taken for a zip bomb."""
MAX_HASHED_BYTES = 2**38
"""Largest file that is hashed: a sparse one of a terabyte would take an hour."""
MAX_ROWS = 10**7
"""Most rows of a parquet file: a few bytes can declare more rows than fit into any memory."""
DAMAGE = (
    EOFError, KeyError, MemoryError, NotImplementedError, OSError, OverflowError, RuntimeError, SyntaxError, TypeError,
    ValueError, struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""Errors that numpy and zipfile raise for archives that are truncated, altered, encrypted or forged."""


def one_line(error: BaseException) -> str:
    """Return an exception's text as one line, its class where it has none."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def refuse_constant(name: str) -> None:
    """Raise ValueError for NaN and Infinity, which Python's json reads."""
    raise ValueError(f"{name} is not a number of JSON")


def parse_finite(text: str) -> float:
    """Return a JSON number. ValueError for one that is too large, which Python would read as infinite."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large")
    return value


def parse_json(
    text: str | bytes, where: str, advice: str, *, kind: type = dict, error: type[Exception] = StorageError
) -> Any:
    """Return the value of a JSON text, of type `kind`; NaN and Infinity are refused. `error` for anything else."""
    try:
        value = json.loads(text, parse_constant=refuse_constant, parse_float=parse_finite)
    except (ValueError, RecursionError) as cause:
        raise error(f"{where} holds no readable JSON ({one_line(cause)}): {advice}") from cause
    if not isinstance(value, kind):
        raise error(f"{where} holds a JSON {type(value).__name__} where a {kind.__name__} belongs: {advice}")
    return value


@contextlib.contextmanager
def open_file(path: Path, advice: str, error: type[Exception] = StorageError) -> Iterator[io.BufferedReader]:
    """Open a regular file for reading. `error` when there is none; a pipe or device, which may not end, is refused."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise error(f"{path} cannot be read (it is no file): {advice}")
        with open(path, "rb") as file:
            yield file
    except (OSError, ValueError) as cause:
        if isinstance(cause, error):
            raise
        reason = getattr(cause, "strerror", None) or one_line(cause)
        raise error(f"{path} cannot be read ({reason}): {advice}") from cause


def read_bytes(path: Path, advice: str, error: type[Exception] = StorageError) -> bytes:
    """Return a file's content. `error` when there is none, it cannot be read or is larger than MAX_FILE_BYTES."""
    with open_file(path, advice, error) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_FILE_BYTES:
            raise error(f"{path} has {size} bytes, more than {MAX_FILE_BYTES}: {advice}")
        return file.read()


def read_part(path: Path, offset: int, size: int, advice: str, error: type[Exception] = StorageError) -> bytes:
    """Return `size` bytes of a file from `offset`. `error` when it cannot be read or ends before."""
    with open_file(path, advice, error) as file:
        file_size = os.fstat(file.fileno()).st_size
        if offset + size > file_size:
            raise error(f"{path} has {file_size} bytes and should have {offset + size} or more: {advice}")
        file.seek(offset)
        return file.read(size)


def read_sha256(path: Path, advice: str, error: type[Exception] = StorageError) -> str:
    """Return the sha256 of a file's content as 64 hexadecimal digits. `error` when it cannot be read or is larger than
    MAX_HASHED_BYTES."""
    with open_file(path, advice, error) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_HASHED_BYTES:
            raise error(f"{path} has {size} bytes, more than {MAX_HASHED_BYTES}: {advice}")
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path, advice: str, *, kind: type = dict, error: type[Exception] = StorageError) -> Any:
    """Return a JSON file's value, of type `kind` (dict or list). `error` for a missing or damaged file."""
    return parse_json(read_bytes(path, advice, error), str(path), advice, kind=kind, error=error)


def read_table(
    path: Path, advice: str, columns: Collection[str] = (), error: type[Exception] = StorageError
) -> pa.Table:
    """Return a parquet file's table.

    `error` for a damaged file, one that lacks one of `columns`, or one that declares more than MAX_ROWS rows or
    MAX_FILE_BYTES bytes, which is not unpacked.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = read_bytes(path, advice, error)
    try:
        declared = pq.ParquetFile(io.BytesIO(data)).metadata
        size = sum(declared.row_group(group).total_byte_size for group in range(declared.num_row_groups))
        if declared.num_rows > MAX_ROWS or size > MAX_FILE_BYTES:
            raise error(f"{path} declares {declared.num_rows} rows of {size} bytes: {advice}")
        table = pq.read_table(io.BytesIO(data))
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as cause:
        if isinstance(cause, error):
            raise
        raise error(f"{path} holds no readable parquet ({one_line(cause)}): {advice}") from cause
    missing = sorted(set(columns) - set(table.column_names))
    if missing:
        raise error(f"{path} lacks the column {missing[0]!r}: {advice}")
    return table


def read_parquet(
    path: Path, advice: str, columns: Collection[str] = (), error: type[Exception] = StorageError
) -> list[dict[str, Any]]:
    """Return a parquet file's rows as dictionaries. `error` as for `read_table`."""
    table = read_table(path, advice, columns, error)
    try:
        rows: list[dict[str, Any]] = table.to_pylist()
    except (ValueError, OverflowError, MemoryError) as cause:
        raise error(f"{path} holds no readable parquet ({one_line(cause)}): {advice}") from cause
    return rows


def read_npz(
    source: Path | bytes,
    where: str,
    advice: str,
    *,
    max_bytes: int = MAX_NPZ_BYTES,
    error: type[Exception] = StorageError,
) -> dict[str, np.ndarray]:
    """Return the arrays of an .npz file or its bytes; pickles are refused. `where` names it in messages.

    `error` for a damaged archive, or one whose declared sizes exceed `max_bytes`, which is not unpacked.
    """
    data = source if isinstance(source, bytes) else read_bytes(source, advice, error)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            declared = sum(entry.file_size for entry in archive.infolist())
            if declared > max_bytes:
                raise error(f"{where} declares {declared} bytes, more than {max_bytes}: {advice}")
            for entry in archive.infolist():
                with archive.open(entry) as member:
                    check_header(member, entry)
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except DAMAGE as cause:
        if isinstance(cause, error):
            raise
        raise error(f"{where} holds no readable arrays ({one_line(cause)}): {advice}") from cause


def check_header(member: Any, entry: zipfile.ZipInfo) -> None:
    """Raise ValueError when an .npy header declares more data than its archive member holds."""
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(member)
    if math.prod(shape) * dtype.itemsize > entry.file_size:
        raise ValueError(f"{entry.filename} promises {shape} of {dtype} in {entry.file_size} bytes")
