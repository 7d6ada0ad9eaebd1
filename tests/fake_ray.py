"""Ray without processes: actors that answer from a script, nodes that come and go, and a clock that the test moves."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from infra.actor_pool import placement, pool, slot

HANGS = "hangs"
"""The answer of a call that never comes back."""


class Clock:
    """Time that passes only while somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


class FakeRay:
    """Actors whose `start`, `work` and `reports` answer what the script says; calls of one actor are answered in turn.

    Each node holds as many actors as it has CPUs, whatever they ask for.
    """

    class exceptions:
        class RayError(Exception):
            pass

        class RayTaskError(RayError):
            def __init__(self, cause: Exception) -> None:
                super().__init__(str(cause))
                self.cause = cause

        class RayActorError(RayError):
            pass

    def __init__(self, clock: Clock, start: Callable[[str], Any], work: Callable[[str, Any], Any], cpus: int) -> None:
        self.clock, self.on_start, self.on_work = clock, start, work
        self.on_reports: Callable[[str], list] = lambda name: []
        self.log: list[tuple] = []
        self.numbers = itertools.count()
        self.answers: dict[int, Any] = {}
        self.cluster: dict[str, dict[str, float]] = {"node0": {"CPU": cpus} if cpus else {}}
        self.lost_nodes: list[str] = []
        self.living: dict[str, str] = {}
        """Actor's name -> its node, "" while it has none."""
        self.places: dict[str, str] = {}
        """Actor's name -> the node that it had last, also of those that are no more."""
        self.options: dict[str, Any] = {}

    def remote(self, **options):
        return lambda kind: SimpleNamespace(remote=lambda *given: self.create(options, *given))

    def create(self, options: dict[str, Any], *given: Any) -> Any:
        """Return a new actor; its name is the last argument that it is made with, if that is a text."""
        name = given[-1] if isinstance(given[-1], str) else f"actor{next(self.numbers)}"
        self.options = options
        self.log.append(("made", name))
        self.living[name] = ""
        call = {
            "placed": lambda: lambda: self.place(name),
            "start": lambda: self.on_start(name),
            "work": lambda item: self.on_work(name, item),
            "reports": lambda: self.on_reports(name),
            "stop": lambda: None,
        }

        def method(what):
            def remote(*given):
                self.log.append((what, name, *given))
                return self.promise(call[what](*given))

            return SimpleNamespace(remote=remote)

        return SimpleNamespace(name=name, **{what: method(what) for what in call})

    def place(self, name: str) -> str:
        """Return the node of an actor, HANGS while none has room."""
        for node, resources in self.cluster.items():
            taken = sum(place == node for place in self.living.values())
            if not self.living[name] and taken < resources.get("CPU", 0):
                self.living[name] = self.places[name] = node
        return self.living[name] or HANGS

    def lose_node(self, node: str) -> None:
        """Let a node be lost; calls of its actors answer that they died."""
        del self.cluster[node]
        self.lost_nodes.append(node)

    def promise(self, answer: Any) -> int:
        number = next(self.numbers)
        self.answers[number] = answer
        return number

    def answer_of(self, reference: int) -> Any:
        answer = self.answers[reference]
        return answer() if callable(answer) else answer

    def nodes(self):
        known = [(node, resources, True) for node, resources in self.cluster.items()]
        known += [(node, {}, False) for node in self.lost_nodes]
        return [
            {"NodeID": node, "NodeManagerHostname": node, "Alive": alive, "Resources": resources}
            for node, resources, alive in known
        ]

    def available_resources(self):
        return {"CPU": sum(resources.get("CPU", 0) for resources in self.cluster.values())}

    def wait(self, references, num_returns, timeout):
        ready = [reference for reference in references if self.answer_of(reference) is not HANGS]
        if ready:
            return ready[:num_returns], []
        self.clock.now += timeout
        return [], references

    def get(self, reference, timeout):
        answer = self.answer_of(reference)
        self.answers.pop(reference)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def kill(self, actor):
        self.log.append(("killed", actor.name))
        self.living.pop(actor.name, None)

    def count(self, what: str, name: str = "") -> int:
        return sum(entry[0] == what and entry[1].startswith(name) for entry in self.log)


def on_this_clock(monkeypatch) -> Clock:
    """Let the pool live by a clock that only waiting moves."""
    clock = Clock()

    class Nothing:
        def wait(self, seconds):
            assert math.isfinite(seconds)
            clock.now += seconds

    for module in (slot, pool, placement):
        monkeypatch.setattr(module, "time", clock)
    for module in (pool, placement):
        monkeypatch.setattr(module, "threading", SimpleNamespace(Event=Nothing))
    return clock
