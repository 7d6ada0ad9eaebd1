"""Files that may be damaged: read whole, or one sentence that says which file, what is wrong and what to do.

Every reader takes `advice`, what the user should do about a file of that kind, and `error`, the caller's own class.
"""

from __future__ import annotations

import io
import json
import math
import struct
import tomllib
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from infra.storage import StorageError

MOST_NPZ_BYTES = 2**30
"""Of an .npz's arrays together, unless told otherwise: more is a zip bomb."""
DAMAGE = (
    EOFError, KeyError, MemoryError, NotImplementedError, OSError, OverflowError, RuntimeError, SyntaxError, TypeError,
    ValueError, struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What numpy and zipfile raise for archives that are truncated, altered, encrypted or made up."""


def one_line(error: BaseException) -> str:
    """Return an exception's text as one line, its class where it has none."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON")


def parse_json(text: str | bytes, where: str, advice: str, *, kind: type = dict, error: type[Exception] = StorageError):
    """Return the value of a JSON text, of type `kind`; NaN and Infinity are refused. `error` for anything else."""
    try:
        value = json.loads(text, parse_constant=refuse_constant)
    except (ValueError, RecursionError) as cause:
        raise error(f"{where} holds no readable JSON ({one_line(cause)}): {advice}") from cause
    if not isinstance(value, kind):
        raise error(f"{where} holds a JSON {type(value).__name__} where a {kind.__name__} belongs: {advice}")
    return value


def read_bytes(path: Path, advice: str, error: type[Exception] = StorageError) -> bytes:
    """Return a file's content. `error` when there is none or it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as cause:
        raise error(f"{path} cannot be read ({cause.strerror or one_line(cause)}): {advice}") from cause


def read_json(path: Path, advice: str, *, kind: type = dict, error: type[Exception] = StorageError) -> Any:
    """Return a JSON file's value, of type `kind` (dict or list). `error` for a missing or damaged file."""
    return parse_json(read_bytes(path, advice, error), str(path), advice, kind=kind, error=error)


def read_toml(path: Path, advice: str, error: type[Exception] = StorageError) -> dict[str, Any]:
    """Return a TOML file's table. `error` for a missing or damaged file."""
    try:
        return tomllib.loads(read_bytes(path, advice, error).decode())
    except (ValueError, RecursionError) as cause:
        raise error(f"{path} holds no readable TOML ({one_line(cause)}): {advice}") from cause


def read_parquet(
    path: Path, advice: str, columns: Collection[str] = (), error: type[Exception] = StorageError
) -> list[dict[str, Any]]:
    """Return a parquet file's rows as dictionaries. `error` for a damaged file or one that lacks one of `columns`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = read_bytes(path, advice, error)
    try:
        table = pq.read_table(io.BytesIO(data))
        rows: list[dict[str, Any]] = table.to_pylist()
    except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as cause:
        raise error(f"{path} holds no readable parquet ({one_line(cause)}): {advice}") from cause
    lacking = sorted(set(columns) - set(table.column_names))
    if lacking:
        raise error(f"{path} lacks the column {lacking[0]!r}: {advice}")
    return rows


def read_npz(
    source: Path | bytes,
    where: str,
    advice: str,
    *,
    most_bytes: int = MOST_NPZ_BYTES,
    error: type[Exception] = StorageError,
) -> dict[str, np.ndarray]:
    """Return the arrays of an .npz file or its bytes, no pickles. `error` for a damaged archive, or one whose declared
    sizes exceed `most_bytes`: nothing of that is unpacked."""
    data = source if isinstance(source, bytes) else read_bytes(source, advice, error)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            declared = sum(entry.file_size for entry in archive.infolist())
            if declared > most_bytes:
                raise error(f"{where} declares {declared} bytes, more than {most_bytes}: {advice}")
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
    """Raise ValueError when an .npy header promises more than its archive member holds."""
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(member)
    if math.prod(shape) * dtype.itemsize > entry.file_size:
        raise ValueError(f"{entry.filename} promises {shape} of {dtype} in {entry.file_size} bytes")
