"""The tars of shards: plain files of one sample after another, and nothing else that a tar can hold."""

from __future__ import annotations

import io
import tarfile

import pytest

from infra.storage import sha256_bytes
from tasks.sharding.archive import add_member, members_of, samples_of
from tasks.sharding.errors import ShardError


def tar_of(*members: tuple[str, bytes], form: int = tarfile.USTAR_FORMAT, kind: bytes = tarfile.REGTYPE) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size, member.type, member.linkname = len(data), kind, "/etc/passwd"
            tar.addfile(member, io.BytesIO(data))
        end = tar.offset
    return buffer.getvalue()[:end]


def sized(data: bytes, field: bytes) -> bytes:
    """Put another size into the first header, with its checksum."""
    changed = bytearray(data)
    changed[124:136] = field
    changed[148:156] = b" " * 8
    changed[148:156] = b"%06o\0 " % sum(changed[:512])
    return bytes(changed)


def test_members_come_back_whoever_wrote_the_tar():
    data = tar_of(("key-000.meta.json", b"{}"), ("key-000.agent0.mp4", bytes(700)))
    assert members_of(data, "key-000") == {"meta.json": b"{}", "agent0.mp4": bytes(700)}


HUGE = b"\x80" + (2**62).to_bytes(11, "big")
NEGATIVE = b"\xff" + (2**88 - 512).to_bytes(11, "big")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (tar_of(("key-000.a", b"1"), ("key-000.a", b"2")), "foreign member 'key-000.a'"),
        (tar_of(("key-000.../../a", b"")), "foreign member"),
        (tar_of(("/etc/passwd", b"")), "foreign member '/etc/passwd'"),
        (tar_of(("key-000.a", b""), kind=tarfile.LNKTYPE), "foreign member"),
        (tar_of(("key-000.a", b""), kind=tarfile.CHRTYPE), "foreign member"),
        (tar_of(("key-000.a", b""), kind=tarfile.DIRTYPE), "foreign member"),
        (tar_of(("key-000.a", b""), kind=tarfile.GNUTYPE_SPARSE), "foreign member"),
        (tar_of((f"key-000.{'a' * 200}", b""), form=tarfile.GNU_FORMAT), "foreign member"),
        (tar_of((f"key-000.{'a' * 200}", b""), form=tarfile.PAX_FORMAT), "foreign member"),
        (tar_of(("key-000.\udcff", b""), form=tarfile.GNU_FORMAT), "no readable tar"),
        (sized(tar_of(("key-000.a", b"")), HUGE), "cut short in key-000.a"),
        (sized(tar_of(("key-000.a", b"")), NEGATIVE), "cut short in key-000.a"),
        (tar_of(("key-000.a", bytes(2000)))[:1024], "cut short in key-000.a"),
        (tar_of(("key-000.a", b"1"))[:300], "no readable tar"),
        (bytes(1024), "no readable tar"),
    ],
)
def test_whatever_else_a_tar_can_hold_is_refused(data, words, tmp_path):
    with pytest.raises(ShardError, match="sample key-000 ") as caught:
        members_of(data, "key-000")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_samples_are_found_where_they_were_written(tmp_path):
    path = tmp_path / "train-000000.tar"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for key, name in (("a-000", "x"), ("a-000", "y"), ("b-000", "x")):
            add_member(tar, f"{key}.{name}", key.encode() * 200)
    data = path.read_bytes()
    found = samples_of(path)
    assert [sample["key"] for sample in found] == ["a-000", "b-000"]
    for sample in found:
        part = data[sample["offset"] : sample["offset"] + sample["bytes"]]
        assert sample["sha256"] == sha256_bytes(part)
        assert set(members_of(part, sample["key"])) == ({"x", "y"} if sample["key"] == "a-000" else {"x"})
    path.write_bytes(data[:2200])
    with pytest.raises(ShardError, match=r"train-000000\.tar is cut short"):
        samples_of(path)
