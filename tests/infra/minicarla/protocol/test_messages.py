"""Messages are cut out of the bytes as msgpack defines them, and refused before they can grow."""

from __future__ import annotations

import random
import time

import msgpack
import pytest

from infra.minicarla.protocol import messages
from infra.minicarla.protocol.messages import Budget, MessageError, MessageReader


def value(rng: random.Random, depth: int = 4):
    """Anything that a CARLA client can send."""
    if depth and rng.random() < 0.6:
        return [value(rng, depth - 1) for _ in range(rng.choice([0, 1, 3, 15, 16, 40]) // (5 - depth))]
    length = rng.choice([0, 1, 31, 32, 255, 256, 70_000]) if rng.random() < 0.3 else 3
    return rng.choice(
        [None, True, False, 0, 127, -32, -33, 255, 2**16, 2**32, 2**64 - 1, -(2**63), 0.5, "x" * length, b"x" * length]
    )


def read(data: bytes, budget: Budget | None = None) -> list:
    reader = MessageReader(budget or Budget())
    reader.feed(data)
    return list(reader.messages())


@pytest.mark.parametrize("seed", range(40))
def test_messages_come_out_as_packed_however_they_are_cut(seed):
    rng = random.Random(seed)
    values = [value(rng) for _ in range(5)]
    data = b"".join(map(msgpack.packb, values))
    reader, got = MessageReader(Budget()), []
    while data:
        size = rng.choice([1, 2, 100, len(data)])
        reader.feed(data[:size])
        data = data[size:]
        got += reader.messages()
    assert got == values
    assert not reader.unfinished


def test_any_bytes_are_messages_or_an_error():
    rng, errors = random.Random(0), 0
    for _ in range(3_000):
        try:
            read(rng.randbytes(rng.randrange(400)))
        except MessageError:
            errors += 1
    assert errors > 1_000


@pytest.mark.parametrize(
    "data",
    [
        b"\xdd\xff\xff\xff\xff",
        b"\xdb\x7f\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\x91" * 40,
        b"\x91" * 100_000,
        b"\xdc\xff\xff" * 30,
        b"\x81\x01\x02",
        b"\xde\x00\x01",
        b"\xd4\x01\x01",
        b"\xc1",
    ],
)
def test_what_promises_too_much_or_no_client_sends_is_refused_at_its_first_bytes(data):
    with pytest.raises(MessageError):
        read(data)


def test_unfinished_messages_of_all_connections_share_one_budget():
    budget, half = Budget(most=3_000_000), b"\xdb\x01\x00\x00\x00" + b"x" * 1_000_000
    readers = [MessageReader(budget) for _ in range(4)]
    for reader in readers[:3]:
        reader.feed(half)
        assert list(reader.messages()) == []
    readers[3].feed(half)
    with pytest.raises(MessageError, match="more than 3000000 bytes"):
        list(readers[3].messages())
    assert read(msgpack.packb([0, 1, "version", [[False]]]), budget), "small messages need no share of it"
    for reader in readers:
        reader.close()
    assert budget.held == 0


def test_a_message_in_many_pieces_costs_no_more_than_in_one():
    data = msgpack.packb([0.5] * 100_000)

    def seconds(piece: int) -> float:
        reader, begun = MessageReader(Budget()), time.process_time()
        for at in range(0, len(data), piece):
            reader.feed(data[at : at + piece])
            list(reader.messages())
        return time.process_time() - begun

    assert seconds(1_000) < 5 * seconds(len(data)) + 0.1


def test_a_request_that_is_too_large_is_known_by_its_opening():
    reader = MessageReader(Budget())
    reader.feed(b"\x94\x00\x07" + msgpack.packb("get_map_info") + b"\x91\xdd\xff\xff\xff\xff")
    with pytest.raises(MessageError, match=str(messages.MAX_VALUES)):
        list(reader.messages())
    assert reader.opening() == (7, "get_map_info")
