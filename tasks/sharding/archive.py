"""The tars of shards: plain files in the USTAR format, named `<key>.<member>`, a sample's members one after another.

They are read header by header. Whatever else a tar can hold (links, devices, folders, long names, extended headers) is
refused and never interpreted.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from infra.reading import open_file, read_json, read_sha256
from infra.storage import StorageError, atomic_file, sha256_file
from tasks.sharding.errors import ShardError

BLOCK = tarfile.BLOCKSIZE
CHUNK = 2**20
MEMBER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
WRITE_AGAIN = "write the shards again."


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Append a member; nothing in its header depends on the machine or the day."""
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = len(data), 0o644, 0
    member.uid = member.gid = 0
    member.uname = member.gname = "shareverse"
    tar.addfile(member, io.BytesIO(data))


def write_samples(path: Path, samples: Iterable[tuple[str, Mapping[str, bytes]]]) -> None:
    """Write a tar of samples, each a key and its members by name. The tar appears complete or not at all."""
    with (
        atomic_file(path) as temporary,
        tarfile.open(temporary, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for key, members in samples:
            for name, data in members.items():
                add_member(tar, f"{key}.{name}", data)


def write_sidecar(path: Path, source: str, **more: Any) -> str:
    """Write the record beside a shard that marks it complete and made from `source`; return the shard's sha256."""
    digest = sha256_file(path)
    with atomic_file(path.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps({"source": source, "sha256": digest, **more}))
    return digest


def complete_record(path: Path, source: str) -> dict[str, Any] | None:
    """Return the record beside a shard that is complete and made from `source`, else None: write the shard again."""
    try:
        record: dict[str, Any] = read_json(path.with_suffix(".json"), "")
        complete = record.get("source") == source and record.get("sha256") == read_sha256(path, "")
    except StorageError:
        return None
    return record if complete else None


def read_header(header: bytes, bytes_left: int, where: str) -> tuple[str, str, int]:
    """Return the key, name and size of the member with this header. `bytes_left`: behind the header.

    ShardError for a member that is no plain file, or is longer than that.
    """
    try:
        member = tarfile.TarInfo.frombuf(header, "ascii", "strict")
    except (tarfile.HeaderError, ValueError) as error:
        raise ShardError(f"{where} is no readable tar ({error}): {WRITE_AGAIN}") from error
    key, _, name = member.name.partition(".")
    if member.type != tarfile.REGTYPE or not MEMBER_NAME.fullmatch(key) or not MEMBER_NAME.fullmatch(name):
        raise ShardError(f"{where} holds a foreign member {member.name!r}: {WRITE_AGAIN}")
    if not 0 <= member.size <= bytes_left:
        raise ShardError(f"{where} is cut short in {member.name}: {WRITE_AGAIN}")
    return key, name, member.size


def members_of(data: bytes, key: str) -> dict[str, bytes]:
    """Return the members of sample `key` by name. ShardError for one that is not of this sample, or comes twice."""
    members: dict[str, bytes] = {}
    position, where = 0, f"sample {key}"
    while position < len(data):
        bytes_left = len(data) - position - BLOCK
        member_key, name, size = read_header(data[position : position + BLOCK], bytes_left, where)
        if member_key != key or name in members:
            raise ShardError(f"{where} holds a foreign member {f'{member_key}.{name}'!r}: {WRITE_AGAIN}")
        members[name] = data[position + BLOCK : position + BLOCK + size]
        position += BLOCK + padded(size)
    return members


def padded(size: int) -> int:
    """Return the bytes that `size` bytes of content take in a tar: whole blocks."""
    return -(-size // BLOCK) * BLOCK


def samples_of(path: Path) -> list[dict[str, Any]]:
    """Return key, offset, bytes and sha256 of every sample of a shard, in order. ShardError for what is no shard."""
    samples: list[dict[str, Any]] = []
    with open_file(path, WRITE_AGAIN, ShardError) as file:
        for key, offset, size in member_extents(file, path):
            if samples and samples[-1]["key"] == key:
                samples[-1]["bytes"] += size
            else:
                samples.append({"key": key, "offset": offset, "bytes": size})
        for sample in samples:
            sample["sha256"] = sha256_part(file, sample["offset"], sample["bytes"])
    return samples


def member_extents(file: IO[bytes], path: Path) -> Iterator[tuple[str, int, int]]:
    """Yield each member's key, offset and length, header and padding included, up to the tar's end mark."""
    position, end = 0, os.fstat(file.fileno()).st_size
    while True:
        file.seek(position)
        header = file.read(BLOCK)
        if header == bytes(BLOCK):
            return
        key, _, size = read_header(header, end - position - BLOCK, str(path))
        yield key, position, BLOCK + padded(size)
        position += BLOCK + padded(size)


def sha256_part(file: IO[bytes], offset: int, size: int) -> str:
    """Return the sha256 of a part of a file, read in chunks."""
    digest = hashlib.sha256()
    file.seek(offset)
    while size > 0 and (chunk := file.read(min(size, CHUNK))):
        digest.update(chunk)
        size -= len(chunk)
    return digest.hexdigest()
