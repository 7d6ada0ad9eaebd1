"""Ways in which a file comes to harm. Each takes a whole file, which may be a hard link, and does not write into it."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infra.storage import sha256_bytes

Damage = Callable[[Path], None]
MOST_FIELDS = 12
"""Of a file whose keys or columns are each damaged."""
HUGE = 10**400
"""More than a float holds."""


def replaced(change: Callable[[bytes], bytes]) -> Damage:
    """Return a damage that puts changed content in the file's place."""

    def damage(path: Path) -> None:
        content = change(path.read_bytes())
        path.unlink()
        path.write_bytes(content)

    return damage


def instead(make: Callable[[Path], None]) -> Damage:
    """Return a damage that puts something else in the file's place."""

    def damage(path: Path) -> None:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        make(path)

    return damage


def flipped(bits: int, seed: int) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        drawn, changed = random.Random(f"{seed} {sha256_bytes(content)}"), bytearray(content)
        for _ in range(bits if content else 0):
            changed[drawn.randrange(len(changed))] ^= 1 << drawn.randrange(8)
        return bytes(changed)

    return change


ANY: dict[str, Damage] = {
    "missing": instead(lambda path: None),
    "empty": replaced(lambda content: b""),
    "cut after one byte": replaced(lambda content: content[:1]),
    "cut at a quarter": replaced(lambda content: content[: len(content) // 4]),
    "cut at a half": replaced(lambda content: content[: len(content) // 2]),
    "last byte lost": replaced(lambda content: content[:-1]),
    "random": replaced(lambda content: random.Random(1).randbytes(len(content))),
    "zeros": replaced(lambda content: bytes(len(content))),
    "twice": replaced(lambda content: content + content),
    "no UTF-8": replaced(lambda content: b"\xff\xfe" + content),
    "folder": instead(Path.mkdir),
    "link to itself": instead(lambda path: path.symlink_to(path.name)),
    "link to nothing": instead(lambda path: path.symlink_to("nowhere")),
    "pipe": instead(lambda path: os.mkfifo(path)),
    "endless": instead(lambda path: path.symlink_to("/dev/zero")),
    "sparse": instead(lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 2**40)),
    **{f"bit flipped, {seed}": replaced(flipped(1, seed)) for seed in range(3)},
    "20 bits flipped": replaced(flipped(20, 0)),
}
"""Of any file."""
MEANT = ("bit flipped", "20 bits flipped", "twice", "zeros", "random")
"""Damages that may leave a file of another content, which only a hash tells from the one that was."""


def spread(items: Iterable[Any]) -> list[Any]:
    """Return at most MOST_FIELDS of the items, spread over all."""
    given = list(items)
    return given[:: -(-len(given) // MOST_FIELDS)]


def in_json(change: Callable[[Any], Any]) -> Damage:
    """Return a damage to a JSON file's value; NaN and numbers that are too large are written as they are."""
    return replaced(lambda content: json.dumps(change(json.loads(content))).encode())


def json_damages(path: Path) -> Iterator[tuple[str, Damage]]:
    """Yield damages to a JSON file: its kind, its depth, and each of its keys gone or of another type."""
    content = json.loads(path.read_text())
    for value in ([], "text", 7, None, True):
        yield f"JSON {value!r}", in_json(lambda old, value=value: value)
    yield "JSON too deep", replaced(lambda old: b"[" * 200_000)
    yield "JSON of a long number", replaced(lambda old: b'{"a": ' + b"9" * 10_000 + b"}")
    first = content[:1] if isinstance(content, list) else [content]

    def in_first(change: Callable[[dict], dict]) -> Damage:
        """Return a damage to the object, or to the first one of a list."""
        return in_json(lambda old: change(old) if isinstance(old, dict) else [change(old[0]), *old[1:]])

    for key, value in spread((key, value) for fields in first for key, value in fields.items()):
        yield f"{key} gone", in_first(lambda old, key=key: {k: v for k, v in old.items() if k != key})
        for other in (None, True, float("nan"), HUGE, [None], "../../etc\ud800"):
            if other != value:
                yield f"{key} {other!r:.20}", in_first(lambda old, key=key, other=other: old | {key: other})


def toml_damages(path: Path) -> Iterator[tuple[str, Damage]]:
    """Yield damages to a TOML file: each of its values of another type, not finite, negative, huge or climbing."""
    lines = list(enumerate(path.read_text().splitlines()))
    for number, line in spread((number, line) for number, line in lines if " = " in line):
        key, _, value = line.partition(" = ")

        def with_line(text: str, number: int = number) -> Damage:
            def changed(content: bytes) -> bytes:
                lines = content.decode().splitlines()
                lines[number] = text
                return "\n".join(lines).encode()

            return replaced(changed)

        for other in ("nan", "inf", "-1", "1e400", "1" + "0" * 30, "[[1]]", "{}", "1979-05-27", '"../../etc"', "''"):
            if other != value:
                yield f"{key} {other}", with_line(f"{key} = {other}")
        yield f"{key} twice", with_line(f"{line}\n{line}")
        yield f"{key} misspelt", with_line(f"{key}x = {value}")


def with_table(change: Callable[[pa.Table], pa.Table]) -> Damage:
    def changed(content: bytes) -> bytes:
        buffer = io.BytesIO()
        pq.write_table(change(pq.read_table(io.BytesIO(content))), buffer)
        return buffer.getvalue()

    return replaced(changed)


def parquet_damages(path: Path) -> Iterator[tuple[str, Damage]]:
    """Yield damages to a parquet file: its rows, and each of its columns gone, of another type or without values."""
    table = pq.read_table(path)
    yield "no rows", with_table(lambda old: old.slice(0, 0))
    yield "half the rows", with_table(lambda old: old.slice(0, len(old) // 2))
    yield "twice the rows", with_table(lambda old: pa.concat_tables([old, old]))
    yield "rows reversed", with_table(lambda old: old.take(list(range(len(old)))[::-1]))
    yield "no columns", with_table(lambda old: old.select([]))
    for place, name in spread(enumerate(table.column_names)):
        yield f"{name} gone", with_table(lambda old, name=name: old.drop_columns([name]))
        for kind, values in (
            ("nulls", lambda n, place=place: pa.nulls(n, table.schema.field(place).type)),
            ("climbing", lambda n: pa.array(["../../etc"] * n)),
            ("NaN", lambda n: pa.array([float("nan")] * n)),
            ("huge", lambda n: pa.array([2**62] * n)),
        ):
            yield (
                f"{name}: {kind}",
                with_table(
                    lambda old, place=place, name=name, values=values: old.set_column(place, name, values(len(old)))
                ),
            )


def npz_damages(path: Path) -> Iterator[tuple[str, Damage]]:
    """Yield damages to an .npz: each of its arrays gone, of another type or shape, not finite, huge."""
    with np.load(path) as arrays:
        names = arrays.files
    changes: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "NaN": lambda array: np.full_like(array, np.nan),
        "huge": lambda array: np.full_like(array, 1e300),
        "texts": lambda array: np.full(array.shape, "x"),
        "complex": lambda array: array * 1j,
        "cut": lambda array: array[:1],
        "pickle": lambda array: np.array([{}], dtype=object),
    }

    def with_array(name: str, change: Callable[[np.ndarray], np.ndarray] | None) -> Damage:
        def changed(content: bytes) -> bytes:
            with np.load(io.BytesIO(content)) as archive:
                given = {key: archive[key] for key in archive.files}
            old = given.pop(name)
            buffer = io.BytesIO()
            np.savez(buffer, **given, **({name: change(old)} if change else {}))
            return buffer.getvalue()

        return replaced(changed)

    for name in names:
        yield f"{name} gone", with_array(name, None)
        for kind, change in changes.items():
            yield f"{name}: {kind}", with_array(name, change)


def damages_of(path: Path) -> dict[str, Damage]:
    """Return every damage to a file of this kind, by name."""
    kinds = {".json": json_damages, ".parquet": parquet_damages, ".npz": npz_damages, ".toml": toml_damages}
    more = kinds.get(path.suffix)
    return ANY | (dict(more(path)) if more else {})
