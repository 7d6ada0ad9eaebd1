"""One place of the pool: an actor with its CARLA server, started, watched, stopped and replaced without waiting for it.

Nothing here blocks. A slot always has either a call pending or a time at which it goes on by itself; the pool waits for
whichever comes first.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from infra.reading import one_line
from tasks.planning.rows import PlannedRecording
from tasks.recording.actor import Answer
from tasks.recording.recorder import WARM_UP_TICKS

LAUNCHES_IN_A_ROW = 5
"""Launches that fail one after another; then a slot is hopeless. It goes on trying while other slots are not."""
BACK_OFF_S, LONGEST_BACK_OFF_S = 2.0, 300.0
"""After a failed launch, doubled with each further one."""
STAGGER_S = 4.0
"""Between the first launches of CARLA's servers: they fail when they all load at once."""
PLACE_S, LONGEST_PLACE_S = 60.0, 600.0
"""Until it is said that Ray has not placed an actor; until the slot is given up."""
START_MARGIN_S = 60.0
"""By how much an actor may answer later than the launcher's own deadline."""
STOP_S = 20.0
"""Patience with an actor that was asked to stop; then it is killed."""
SETUP_S, TICK_S = 300.0, 10.0
"""Patience with a recording: with loading its town, and with each of its ticks until the rate is known."""
SLOWER = 10.0
"""Times the slowest rate so far that a recording may take."""


class Phase(Enum):
    """What a slot is doing."""

    WAITING = "waiting"
    """For its next launch."""
    PLACING = "placing"
    STARTING = "starting"
    READY = "ready"
    RECORDING = "recording"
    STOPPING = "stopping"
    OUT = "out"
    """For good: no launch would help."""


class Patience:
    """How long a recording may take: from its ticks and the slowest rate measured so far, unless a limit was given."""

    def __init__(self, limit_s: float | None = None) -> None:
        self.limit_s = limit_s
        self.slowest_s = 0.0
        """Seconds a tick of the slowest recording."""

    def of(self, row: PlannedRecording) -> float:
        a_tick = SLOWER * self.slowest_s or TICK_S
        return self.limit_s or SETUP_S + (row.ticks + WARM_UP_TICKS) * a_tick

    def learn(self, row: PlannedRecording, seconds: float) -> None:
        self.slowest_s = max(self.slowest_s, seconds / (row.ticks + WARM_UP_TICKS))


@dataclass
class Outcome:
    """What became of a slot's recording."""

    row: PlannedRecording | None
    """None where the disk failed before there was one."""
    kind: str
    """"done", "gate", "fault", "server" or "disk", as RecorderActor.record answers."""
    reason: str
    seconds: float


class Slot:
    """Drives one actor through its phases."""

    def __init__(
        self, ray: Any, name: str, make: Callable[[], Any], start_s: float, first_launch_in_s: float, log: Any
    ) -> None:
        """`make()` returns a new actor, `start_s` is the launcher's patience with one launch."""
        self.ray, self.name, self.make, self.start_s = ray, name, make, start_s
        self.log: logging.Logger | logging.LoggerAdapter = log
        self.phase = Phase.WAITING
        self.actor: Any = None
        self.pending: Any = None
        self.since = time.monotonic()
        self.due = self.since + first_launch_in_s
        self.row: PlannedRecording | None = None
        self.town: str | None = None
        self.made = 0
        """Recordings of the running server."""
        self.failures = 0
        """Launches that failed in a row."""
        self.deaths = 0
        """Servers in a row that failed before they had made anything."""
        self.reason = ""
        """Of the last failed launch."""
        self.unusable = False
        """No launch would help."""

    @property
    def hopeless(self) -> bool:
        return self.unusable or self.failures >= LAUNCHES_IN_A_ROW

    def enter(self, phase: Phase, pending: Any, patience_s: float) -> None:
        self.phase, self.pending, self.since = phase, pending, time.monotonic()
        self.due = self.since + patience_s

    def launch(self) -> None:
        """Go on from WAITING: a fresh actor, or the one that is there, launches a server."""
        if self.actor is None:
            self.actor = self.make()
            self.enter(Phase.PLACING, self.actor.placed.remote(), PLACE_S)
        else:
            self.enter(Phase.STARTING, self.actor.start.remote(), self.start_s + START_MARGIN_S)

    def record(self, row: PlannedRecording, patience_s: float) -> None:
        self.row, self.town = row, row.town
        self.enter(Phase.RECORDING, self.actor.record.remote(row), patience_s)

    def stop(self) -> None:
        """Ask the actor to stop its server; it is killed when it has, or takes too long."""
        if self.actor is not None and self.phase is not Phase.PLACING:
            self.enter(Phase.STOPPING, self.actor.stop.remote(), STOP_S)
        else:
            self.discard()

    def discard(self) -> None:
        """Kill the actor and wait for the next launch, if there is to be one."""
        self.kill()
        if self.unusable:
            self.enter(Phase.OUT, None, math.inf)
        else:
            self.enter(Phase.WAITING, None, self.back_off_s())

    def kill(self) -> None:
        if self.actor is not None:
            self.ray.kill(self.actor)
        self.actor, self.town, self.made = None, None, 0

    def back_off_s(self) -> float:
        """Return the time to the next launch: none at first, then longer and longer, differently for each slot."""
        number = self.failures or min(self.deaths - 1, 3)  # a server that started may well start again
        if number < 1:
            return 0.0
        jitter = random.Random(f"{self.name} {number}").uniform(0.75, 1.25)
        return min(BACK_OFF_S * 2.0 ** min(number - 1, 30), LONGEST_BACK_OFF_S) * jitter

    def answered(self) -> Outcome | None:
        """Take the answer of the pending call and go on; return what became of a recording."""
        answer = self.answer()
        if self.phase is Phase.PLACING:
            if answer is None:
                self.launch()
            else:
                self.launch_failed(answer[1])
        elif self.phase is Phase.STARTING:
            return self.started(answer or ("unready", "it did not answer"))
        elif self.phase is Phase.RECORDING:
            return self.recorded(answer or ("server", "it did not answer"))
        elif self.phase is Phase.STOPPING:
            self.discard()
        return None

    def answer(self) -> Answer | None:
        """Return what the pending call returned, if anything. The death of an actor is its server's failure."""
        try:
            return self.ray.get(self.pending, timeout=STOP_S)
        except self.ray.exceptions.RayTaskError as error:  # an error that the actor did not foresee
            self.log.exception(f"{self.name} met an error in this program: please report it.")
            return "fault", one_line(error.cause)
        except self.ray.exceptions.RayError:
            self.kill()
            return "server", f"{self.name} or its recorder died (see logs/{self.name}.log)."

    def overdue(self) -> Outcome | None:
        """Go on after a wait, or without the answer that did not come."""
        waited_s = time.monotonic() - self.since
        if self.phase is Phase.WAITING:
            self.launch()
        elif self.phase is Phase.PLACING and waited_s < LONGEST_PLACE_S:
            self.log.warning(f"{self.name} waits to be placed: {self.resources()}.")
            self.due = time.monotonic() + LONGEST_PLACE_S - waited_s
        elif self.phase is Phase.PLACING:
            self.reason = f"Ray did not place {self.name} within {waited_s:.0f} s: {self.resources()}."
            self.unusable = True
            self.discard()
        elif self.phase is Phase.STARTING:
            self.launch_failed(f"{self.name} did not answer within {waited_s:.0f} s.")
            self.stop()
        elif self.phase is Phase.RECORDING:
            return self.recorded(("server", f"it was not finished after {waited_s:.0f} s, its deadline."))
        elif self.phase is Phase.STOPPING:
            self.discard()
        return None

    def resources(self) -> str:
        """Return what an actor needs of Ray, and what Ray has."""
        total, free = self.ray.cluster_resources().get("CPU", 0), self.ray.available_resources().get("CPU", 0)
        return f"it needs 1 CPU, and of Ray's {total:g} there are {free:g} free"

    def started(self, answer: Answer) -> Outcome | None:
        kind, reason = answer
        if kind == "disk":
            return Outcome(None, kind, reason, 0.0)
        if kind == "ready":
            self.failures = 0
            self.enter(Phase.READY, None, math.inf)
        elif kind == "unusable":
            self.reason, self.unusable = reason, True
            self.log.error(f"{self.name} cannot be used: {reason}")
            self.stop()
        else:
            self.launch_failed(reason)
        return None

    def launch_failed(self, reason: str) -> None:
        """Count a failed launch, say why it failed and wait for the next."""
        self.failures, self.reason = self.failures + 1, reason
        wait_s = self.back_off_s()
        self.log.warning(f"{self.name}: launch {self.failures} in a row failed, the next in {wait_s:.0f} s: {reason}")
        self.enter(Phase.WAITING, None, wait_s)

    def recorded(self, answer: Answer) -> Outcome:
        """Return what became of the recording; a server that did not end it well is replaced."""
        kind, reason = answer
        outcome, self.row = Outcome(self.row, kind, reason, time.monotonic() - self.since), None
        if kind in ("done", "gate"):
            self.made, self.deaths = self.made + 1, 0
            self.enter(Phase.READY, None, math.inf)
        else:
            self.deaths += kind == "server" and not self.made
            self.stop()
        return outcome
