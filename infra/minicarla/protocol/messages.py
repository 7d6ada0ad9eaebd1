"""Where msgpack messages end in a stream of bytes, found before anything is built from them.

A message's headers can declare far more than it holds (five bytes declare a list of 2^32 items), so its depth, number
of values and length are counted first, in one small step per value. Maps and extension types, which CARLA's clients
never send, are refused.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import msgpack

MAX_BYTES = 1 << 25
MAX_VALUES = 250_000
MAX_DEPTH = 32
BYTES_A_VALUE = 64
"""About what a value takes once it is built."""
FREE_BYTES = 1 << 16
"""What each connection may hold without drawing on the common budget."""
BUDGET_BYTES = 1 << 28


class MessageError(ValueError):
    """Bytes that are no acceptable message; nothing that follows them can be read."""


def layout(head: int) -> tuple[int, int, int] | None:
    """Return how a value with this first byte goes on: bytes of its length field, bytes that follow, values in it.

    The latter two are as given by the first byte alone; a length field takes the place of the one that is not zero.
    None for what is refused.
    """
    if head < 0x80 or head >= 0xE0 or head in (0xC0, 0xC2, 0xC3):
        return 0, 0, 0
    if 0x90 <= head <= 0x9F:
        return 0, 0, head & 0x0F
    if 0xA0 <= head <= 0xBF:
        return 0, head & 0x1F, 0
    fixed = {0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8, 0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
    if head in fixed:
        return 0, fixed[head], 0
    strings = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
    if head in strings:
        return strings[head], 1, 0
    return {0xDC: (2, 0, 1), 0xDD: (4, 0, 1)}.get(head)


LAYOUTS = [layout(head) for head in range(256)]


class Budget:
    """Bytes that the unfinished messages of all connections may hold together."""

    def __init__(self, most: int = BUDGET_BYTES) -> None:
        self.most, self.held, self.lock = most, 0, threading.Lock()

    def change(self, before: int, after: int) -> None:
        """Change what a connection holds; MessageError when all connections together would hold too much."""
        with self.lock:
            if after > before and self.held + after - before > self.most:
                raise MessageError(f"the unfinished messages of all connections hold more than {self.most} bytes")
            self.held += after - before


class MessageReader:
    """Cuts one connection's bytes into messages."""

    def __init__(self, budget: Budget) -> None:
        self.budget, self.charged = budget, 0
        self.data = bytearray()
        self.begin()

    def begin(self) -> None:
        self.at = self.values = 0
        self.promised = 1
        self.open = [1]
        """Values still to come in each list that is open, the message itself first."""

    @property
    def unfinished(self) -> bool:
        return bool(self.data)

    def feed(self, data: bytes) -> None:
        self.data += data

    def charge(self) -> None:
        held = max(0, len(self.data) + BYTES_A_VALUE * self.values - FREE_BYTES)
        if held != self.charged:
            self.budget.change(self.charged, held)
            self.charged = held

    def close(self) -> None:
        """Give back what this connection holds."""
        self.data.clear()
        self.begin()
        self.charge()

    def messages(self) -> Iterator[Any]:
        """Yield the whole messages received. MessageError for what cannot become one, or too much of it."""
        while self.scan() and self.at <= len(self.data):
            self.charge()
            whole = bytes(self.data[: self.at])
            del self.data[: self.at]
            self.begin()
            yield msgpack.unpackb(whole, raw=False, unicode_errors="surrogateescape")
        self.charge()

    def scan(self) -> bool:
        """Step over the values received so far; tell whether the message's last one has begun."""
        data, at, pending, size = self.data, self.at, self.open, len(self.data)
        while pending:
            if at >= size:
                break
            how = LAYOUTS[data[at]]
            if how is None:
                raise MessageError(f"byte 0x{data[at]:02x} begins no value that a CARLA client sends")
            field, follow, inside = how
            if field:
                if at + 1 + field > size:
                    break
                length = int.from_bytes(data[at + 1 : at + 1 + field], "big")
                follow, inside = (length, 0) if follow else (0, length)
            at += 1 + field + follow
            self.values += 1
            self.promised += inside
            if at > MAX_BYTES or self.promised > MAX_VALUES:
                raise MessageError(f"a message of more than {MAX_BYTES} bytes or {MAX_VALUES} values")
            pending[-1] -= 1
            if inside:
                pending.append(inside)
                if len(pending) > MAX_DEPTH:
                    raise MessageError(f"a message nested more than {MAX_DEPTH} deep")
            while pending and not pending[-1]:
                pending.pop()
        self.at = at
        return not pending

    def opening(self) -> tuple[int, str] | None:
        """Return number and name of the request that the unread bytes begin, to answer one that is refused."""
        reader = msgpack.Unpacker(raw=False, max_str_len=256, max_array_len=4)
        reader.feed(bytes(self.data[:1024]))
        try:
            if reader.read_array_header() != 4 or reader.unpack() != 0:
                return None
            number, name = reader.unpack(), reader.unpack()
        except (msgpack.UnpackException, ValueError):
            return None
        return (number, name) if isinstance(number, int) and isinstance(name, str) else None
