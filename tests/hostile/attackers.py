"""Clients that send what no client should: seeded, and each message with the outcome that it must have.

The attackers do not take what a CARLA client may do to everybody (load another town, tick, destroy others' actors).
"""

from __future__ import annotations

import collections
import contextlib
import copy
import math
import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import msgpack

from tests.infra.minicarla.served import Rpc, at, description, refusal

ANSWER_S = 30.0
HALF_OPEN = 24
"""Half messages and silent readers that each attacker leaves behind at any time."""

NOT_NUMBERS = (math.nan, math.inf, -math.inf, 1e300, -1e300, "1", None, [], [1.0], True, {"x": 1.0}, b"\x01")
NOT_WHOLE = (*NOT_NUMBERS, 1.5, -1000, 2**63)
NOT_BOOLS = (0, 1, "true", None, [], math.nan)
NOT_STRINGS = (5, None, [], True, math.nan, b"bytes", "\udc80\udcff", "x" * 300)
NOT_LISTS = (None, 5, "list", True, math.nan, b"", {})
SETTINGS = [True, False, [True, 0.05], True, 0.01, 10, 0.0, False, 3000.0, 2000.0, True]


def templates(victim: int) -> dict[str, list]:
    """Valid arguments of RPCs; every leaf of them is checked by the server."""
    car = [1, "vehicle.audi.tt", [["color", 5, "1,2,3"]]]
    return {
        "set_actor_transform": [victim, at(5e6)],
        "set_actor_location": [victim, [5e6, 0.0, 0.0]],
        "set_actor_target_velocity": [victim, [1.0, 0.0, 0.0]],
        "set_actor_target_angular_velocity": [victim, [0.0, 0.0, 0.0]],
        "set_actor_simulate_physics": [victim, False],
        "set_actor_collisions": [victim, True],
        "set_actor_autopilot": [victim, False],
        "apply_control_to_vehicle": [victim, [0.0, 0.0, 1.0, False, False, False, 0]],
        "set_vehicle_light_state": [victim, [0]],
        "set_weather_parameters": [[10.0] * 14],
        "set_episode_settings": [SETTINGS],
        "load_new_episode": ["Mini01", True, 0],
        "get_actors_by_id": [[victim]],
        "get_sensor_token": [1],
        "get_actor_bounding_box": [victim],
        "spawn_actor": [car, at(6e6)],
        "apply_batch": [[[[6, [victim, at(5e6)]]]], False],
        "destroy_actor": [victim],
        "unload_map_layer": [0],
        "get_environment_objects": [8],
        "copy_opendrive_to_file": ["<OpenDRIVE/>", [2.0, 50.0, 1.0, 0.6, True, True, True]],
    }  # fmt: skip


def leaves(value: list, path: tuple[int, ...] = ()) -> Iterator[tuple[int, ...]]:
    """Where the values inside a nested list are."""
    for index, part in enumerate(value):
        yield (*path, index)
        if isinstance(part, list):
            yield from leaves(part, (*path, index))


def poison(name: str, value: Any, rng: random.Random) -> Any:
    """A value that cannot stand where `value` stands."""
    if isinstance(value, bool):
        return rng.choice(NOT_BOOLS)
    if isinstance(value, int):
        return rng.choice(NOT_WHOLE)
    if isinstance(value, float):
        return rng.choice(NOT_NUMBERS)
    return rng.choice(NOT_STRINGS if isinstance(value, str) else NOT_LISTS)


def pack(value: Any) -> bytes:
    return msgpack.packb(value, unicode_errors="surrogateescape")


class Attacker:
    """Sends hostile messages to both ports of a server and counts what came of them."""

    def __init__(self, port: int, seed: int, number: int) -> None:
        self.port, self.rng = port, random.Random(1000 * seed + number)
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.faults: list[str] = []
        self.left_behind: collections.deque[socket.socket] = collections.deque()
        self.rpc = Rpc(port, ANSWER_S)
        self.victim = self.rpc.call("spawn_actor", description("vehicle.audi.tt"), at(1e5 + 1e3 * number))[0]
        self.kinds: list[tuple[int, Callable[[], None]]] = [
            (40, self.wrong_value), (10, self.wrong_count), (10, self.unknown_function), (10, self.bad_attribute),
            (8, self.flipped_bits), (6, self.no_request), (4, self.random_bytes), (3, self.deep), (3, self.promises),
            (4, self.half_message), (4, self.bad_stream), (2, self.silent_reader), (2, self.announcement),
            (4, self.churn),
        ]  # fmt: skip

    def run(self, messages: int) -> None:
        weights = [weight for weight, _ in self.kinds]
        for _ in range(messages):
            ((_, kind),) = self.rng.choices(self.kinds, weights)
            try:
                kind()
            except (OSError, RuntimeError, msgpack.UnpackException, ValueError) as error:
                self.faults.append(f"{kind.__name__}: {error!r}")
                self.renew()
        for connection in self.left_behind:
            connection.close()
        with contextlib.suppress(RuntimeError):
            self.rpc.call("destroy_actor", self.victim)
        self.rpc.socket.close()

    def renew(self) -> None:
        self.rpc.socket.close()
        self.rpc = Rpc(self.port, ANSWER_S)

    def keep(self, connection: socket.socket) -> None:
        """Leave a connection open without reading from it."""
        self.left_behind.append(connection)
        if len(self.left_behind) > HALF_OPEN:
            self.left_behind.popleft().close()

    def request(self, kind: str, name: str, arguments: Any, *, refused: bool) -> None:
        """Send one request; note a fault when it is accepted though it must be `refused`."""
        meta = [self.rng.random() < 0.3]
        self.rpc.send(pack([0, self.rng.randrange(2**32), name, [meta, *arguments]]))
        self.read(kind, f"{name}{arguments!r:.200}", refused=refused)

    def read(self, kind: str, what: str, *, refused: bool) -> None:
        try:
            _, _, error, result = self.rpc.receive()
        except TimeoutError:
            self.faults.append(f"{what}: no answer within {ANSWER_S} s")
            self.renew()
            return
        except ConnectionError:
            self.outcomes[f"{kind}: connection closed"] += 1
            self.renew()
            return
        sentence = error if isinstance(error, str) else refusal(result)
        if sentence is None and refused:
            self.faults.append(f"{what} was accepted")
        if sentence is not None and " failed: " in sentence:
            self.faults.append(f"{what}: {sentence}")
        self.outcomes[f"{kind}: {'accepted' if sentence is None else 'refused'}"] += 1
        if sentence is None and what.startswith("spawn_actor"):
            self.rpc.call("destroy_actor", result[0][1][0])

    # -- kinds ------------------------------------------------------------------------------------------------------

    def wrong_value(self) -> None:
        """A valid call with one value that cannot be."""
        name, arguments = self.rng.choice(sorted(templates(self.victim).items()))
        arguments = copy.deepcopy(arguments)
        paths = list(leaves(arguments))
        if not paths:
            return self.unknown_function()
        *path, last = self.rng.choice(paths)
        holder = arguments
        for index in path:
            holder = holder[index]
        holder[last] = poison(name, holder[last], self.rng)
        return self.request("wrong value", name, arguments, refused=True)

    def wrong_count(self) -> None:
        name, arguments = self.rng.choice(sorted(templates(self.victim).items()))
        may_lack_one = name in ("load_new_episode", "apply_batch")
        few = self.rng.random() < 0.5 and not may_lack_one
        arguments = arguments[:-1] if few else [*arguments, self.rng.random(), None]
        self.request("wrong number of arguments", name, arguments, refused=True)

    def unknown_function(self) -> None:
        letters = "abcdefghijklmnopqrstuvwxyz_\x00é\udc80"
        name = "".join(self.rng.choices(letters, k=self.rng.randrange(40)))
        name = self.rng.choice([name, "__init__", "rpc", "world", "start_recorder", "cast_ray", "enable_gbuffers"])
        self.request("unknown function", name, [self.junk(2)], refused=True)

    def bad_attribute(self) -> None:
        name, value = self.rng.choice(
            [("image_size_x", "0"), ("image_size_x", "5000"), ("image_size_y", "nan"), ("fov", "inf"), ("fov", "180"),
             ("fov", ""), ("sensor_tick", "-1"), ("sensor_tick", "nan"), ("exposure_mode", "x"), ("nothing", "1"),
             ("enable_postprocess_effects", "maybe"), ("role_name", "\n"), ("image_size_x", "9" * 200)]
        )  # fmt: skip
        given = description("sensor.camera.rgb", **{name: value})
        self.request("bad attribute", "spawn_actor", [given, at(7e6)], refused=True)

    def flipped_bits(self) -> None:
        """A valid request of a function that changes nothing, with a few bits turned: any outcome but a fault."""
        calls = [("version", []), ("get_actors_by_id", [[self.victim]]), ("get_map_info", []), ("get_spectator", [])]
        data = bytearray(pack([0, 1, *self.with_meta(self.rng.choice(calls))]))
        for _ in range(self.rng.randrange(1, 4)):
            data[self.rng.randrange(len(data))] ^= 1 << self.rng.randrange(8)
        self.alone("flipped bits", bytes(data))

    def with_meta(self, call: tuple[str, list]) -> tuple[str, list]:
        return call[0], [[False], *call[1]]

    def no_request(self) -> None:
        """msgpack that is no request."""
        shapes = [self.junk(3), [0, self.junk(1), self.junk(2)], [2, "tick_cue", []], [0, 1, 2, []]]
        self.alone("no request", pack(self.rng.choice(shapes)))

    def random_bytes(self) -> None:
        self.alone("random bytes", self.rng.randbytes(self.rng.randrange(1, 3000)))

    def deep(self) -> None:
        depth = self.rng.choice([10, 33, 1000, 100_000])
        self.alone("deep nesting", pack([0, 1, "version"])[:1].replace(b"\x93", b"\x94") + pack(0) + pack(1)
                   + pack("version") + b"\x91" * depth + b"\xc0")  # fmt: skip

    def promises(self) -> None:
        """Headers that promise gigabytes."""
        head = self.rng.choice([b"\xdd", b"\xdb", b"\xc6", b"\xdf", b"\xc9"])
        length = struct.pack(">I", self.rng.choice([2**32 - 1, 2**28, 2**25 + 1]))
        self.alone("promise of gigabytes", b"\x94\x00\x01" + pack("get_map_info") + b"\x92\x91\xc2" + head + length)

    def alone(self, kind: str, data: bytes) -> None:
        """Send bytes on a connection of their own, say that no more will come, and read until it ends."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=ANSWER_S) as connection:
            try:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                answer = b""
                while more := connection.recv(1 << 16):
                    answer += more
            except TimeoutError:
                self.faults.append(f"{kind} {data[:100]!r}: the connection did not end within {ANSWER_S} s")
                return
            except OSError:
                answer = b""
        self.outcomes[f"{kind}: {'answered' if answer else 'connection closed'}"] += 1

    def half_message(self) -> None:
        data = pack([0, 1, "copy_opendrive_to_file", [[False], "x" * self.rng.choice([10, 1000, 300_000])]])
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=ANSWER_S)
        try:
            connection.sendall(data[: self.rng.randrange(1, len(data))])
        except OSError:
            connection.close()
            self.outcomes["half message: connection closed"] += 1
        else:
            self.keep(connection)
            self.outcomes["half message: left open"] += 1

    def bad_stream(self) -> None:
        """Streams that are not there, half a number, more than a number."""
        choices = [b"", b"\x01", b"\x01\x00\x00\x00more", self.rng.randbytes(4), self.rng.randbytes(100)]
        connection = socket.create_connection(("127.0.0.1", self.port + 1), timeout=ANSWER_S)
        with contextlib.suppress(OSError):
            connection.sendall(self.rng.choice(choices))
        self.outcomes["bad stream: left open"] += 1
        self.keep(connection)

    def silent_reader(self) -> None:
        """A subscription to a real stream that is never read."""
        stream = self.rng.choice([1, 1, 2, 3])
        connection = socket.create_connection(("127.0.0.1", self.port + 1), timeout=ANSWER_S)
        with contextlib.suppress(OSError):
            connection.sendall(struct.pack("<I", stream))
        self.outcomes["silent reader: left open"] += 1
        self.keep(connection)

    def announcement(self) -> None:
        """The announcement of a reader that never comes, by a client that goes away."""
        with Rpc(self.port, ANSWER_S) as rpc:
            rpc.call("get_sensor_token", 1)
        self.outcomes["announcement: accepted"] += 1

    def churn(self) -> None:
        for _ in range(self.rng.randrange(1, 10)):
            socket.create_connection(("127.0.0.1", self.port + self.rng.randrange(2)), timeout=ANSWER_S).close()
        self.outcomes["opened and closed: done"] += 1

    def junk(self, depth: int) -> Any:
        if depth and self.rng.random() < 0.5:
            return [self.junk(depth - 1) for _ in range(self.rng.randrange(4))]
        return self.rng.choice(
            [None, True, -1, 0, 2**63, 1.5, math.nan, math.inf, 1e300, "", "x" * 300, b"\xff", "\udc80", {"a": 1}]
        )


class Attack:
    """Several attackers at once, each in a thread."""

    def __init__(self, port: int, seed: int, attackers: int) -> None:
        self.attackers = [Attacker(port, seed, number) for number in range(attackers)]

    def run(self, messages: int) -> None:
        """Send about `messages` in all and wait for their outcomes."""
        share = messages // len(self.attackers)
        threads = [threading.Thread(target=attacker.run, args=(share,)) for attacker in self.attackers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    @property
    def outcomes(self) -> collections.Counter[str]:
        return sum((attacker.outcomes for attacker in self.attackers), collections.Counter())

    @property
    def faults(self) -> list[str]:
        return [fault for attacker in self.attackers for fault in attacker.faults]
