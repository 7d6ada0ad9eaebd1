"""Ray without processes: actors that answer from a script, and a clock that the test moves."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from tasks.recording import pool, slot

HANGS = "hangs"
"""The answer of a call that never comes back."""


class Clock:
    """Time that passes only while somebody waits."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


class FakeRay:
    """Actors whose `start` and `record` answer what the script says; calls of one actor are answered in turn."""

    class exceptions:
        class RayError(Exception):
            pass

        class RayTaskError(RayError):
            def __init__(self, cause: Exception) -> None:
                super().__init__(str(cause))
                self.cause = cause

        class RayActorError(RayError):
            pass

    def __init__(self, clock: Clock, start: Callable[[str], Any], record: Callable[[str, Any], Any], cpus: int) -> None:
        self.clock, self.on_start, self.on_record, self.cpus = clock, start, record, cpus
        self.log: list[tuple] = []
        self.numbers = itertools.count()
        self.answers: dict[int, Any] = {}

    def remote(self, **options):
        assert options == {"num_cpus": 1, "max_concurrency": 2}

        def make(spec, folder, name, gpu):
            self.log.append(("made", name))
            call = {
                "placed": lambda: None,
                "start": lambda: self.on_start(name),
                "record": lambda row: self.on_record(name, row),
                "stop": lambda: None,
            }

            def method(what):
                def remote(*given):
                    self.log.append((what, name, *(row.recording_id for row in given)))
                    return self.promise(call[what](*given))

                return SimpleNamespace(remote=remote)

            return SimpleNamespace(name=name, **{what: method(what) for what in call})

        return lambda kind: SimpleNamespace(remote=make)

    def promise(self, answer: Any) -> int:
        number = next(self.numbers)
        self.answers[number] = answer
        return number

    def cluster_resources(self):
        return {"CPU": self.cpus} if self.cpus else {}

    available_resources = cluster_resources

    def wait(self, references, num_returns, timeout):
        ready = [reference for reference in references if self.answers[reference] is not HANGS]
        if ready:
            return ready[:num_returns], []
        self.clock.now += timeout
        return [], references

    def get(self, reference, timeout):
        answer = self.answers.pop(reference)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def kill(self, actor):
        self.log.append(("killed", actor.name))

    def count(self, what: str, name: str = "") -> int:
        return sum(entry[0] == what and entry[1].startswith(name) for entry in self.log)


def on_this_clock(monkeypatch) -> Clock:
    """Let the pool live by a clock that only waiting moves."""
    clock = Clock()

    class Nothing:
        def wait(self, seconds):
            assert math.isfinite(seconds)
            clock.now += seconds

    monkeypatch.setattr(slot, "time", clock)
    monkeypatch.setattr(pool, "time", clock)
    monkeypatch.setattr(pool, "threading", SimpleNamespace(Event=Nothing))
    return clock
