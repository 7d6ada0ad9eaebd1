"""One slot of the pool: an actor with its CARLA server, which is started, watched, stopped and replaced.

Nothing here blocks. A slot always has a pending call or a deadline, and the pool waits for whichever comes first.
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

MAX_FAILED_LAUNCHES = 5
"""After so many failed launches in a row a slot is hopeless. It keeps trying while any other slot is not."""
BACK_OFF_S, MAX_BACK_OFF_S = 2.0, 300.0
"""Wait after a failed launch; it doubles with each further one, up to the maximum."""
STAGGER_S = 4.0
"""Between the first launches of CARLA's servers, which fail when they all load at once."""
PLACEMENT_WARNING_S, MAX_PLACEMENT_S = 60.0, 600.0
"""After so long a warning says that Ray has not placed the actor; after so long the slot is given up."""
START_MARGIN_S = 60.0
"""How much later than the launcher's own deadline an actor may answer."""
STOP_TIMEOUT_S = 20.0
"""An actor that was asked to stop its server is killed after so long."""
SETUP_TIMEOUT_S, UNKNOWN_TICK_S = 300.0, 10.0
"""Timeout of loading a recording's town, and of each of its ticks while no rate is known."""
SLOWEST_RATE_FACTOR = 10.0
"""A recording may take so many times the slowest rate measured."""


class Phase(Enum):
    """What a slot is doing."""

    WAITING = "waiting"
    """For its next launch; there may be no actor."""
    PLACING = "placing"
    STARTING = "starting"
    READY = "ready"
    RECORDING = "recording"
    STOPPING = "stopping"
    RETIRED = "retired"
    """No launch would help."""


class RecordingTimeout:
    """How long a recording may take: by its ticks and the slowest rate measured so far, unless a limit was given."""

    def __init__(self, limit_s: float | None = None) -> None:
        self.limit_s = limit_s
        self.slowest_s = 0.0
        """Seconds per tick of the slowest recording."""

    def seconds_for(self, row: PlannedRecording) -> float:
        per_tick_s = SLOWEST_RATE_FACTOR * self.slowest_s or UNKNOWN_TICK_S
        return self.limit_s or SETUP_TIMEOUT_S + (row.ticks + WARM_UP_TICKS) * per_tick_s

    def learn(self, row: PlannedRecording, seconds: float) -> None:
        self.slowest_s = max(self.slowest_s, seconds / (row.ticks + WARM_UP_TICKS))


@dataclass
class RecordingOutcome:
    """How a slot's recording ended."""

    row: PlannedRecording | None
    """None if the disk failed before there was one."""
    kind: str
    """"done", "gate", "fault", "server" or "disk", as `RecorderActor.record` answers."""
    reason: str
    seconds: float


class Slot:
    """Drives one actor through its phases."""

    def __init__(
        self, ray: Any, name: str, create_actor: Callable[[], Any], start_s: float, first_launch_in_s: float, log: Any
    ) -> None:
        """`create_actor()` returns a new actor; `start_s` is the launcher's timeout for one launch."""
        self.ray, self.name, self.create_actor, self.start_s = ray, name, create_actor, start_s
        self.log: logging.Logger | logging.LoggerAdapter = log
        self.phase = Phase.WAITING
        self.actor: Any = None
        self.pending: Any = None
        """Ray's reference to the call that the actor has yet to answer."""
        self.phase_since = time.monotonic()
        self.due = self.phase_since + first_launch_in_s
        """When `go_on` is to be called if no answer has come."""
        self.row: PlannedRecording | None = None
        self.town: str | None = None
        self.recordings_made = 0
        """By the running server."""
        self.failed_launches = 0
        """In a row."""
        self.fruitless_servers = 0
        """Servers in a row that failed before they had recorded anything."""
        self.reason = ""
        """Why the last launch failed."""
        self.unusable = False
        """No launch would help."""

    @property
    def hopeless(self) -> bool:
        return self.unusable or self.failed_launches >= MAX_FAILED_LAUNCHES

    def enter(self, phase: Phase, pending: Any, timeout_s: float) -> None:
        self.phase, self.pending, self.phase_since = phase, pending, time.monotonic()
        self.due = self.phase_since + timeout_s

    def launch(self) -> None:
        """Create the actor if there is none; else have it launch its server."""
        if self.actor is None:
            self.actor = self.create_actor()
            self.enter(Phase.PLACING, self.actor.placed.remote(), PLACEMENT_WARNING_S)
        else:
            self.enter(Phase.STARTING, self.actor.start.remote(), self.start_s + START_MARGIN_S)

    def record(self, row: PlannedRecording, timeout_s: float) -> None:
        self.row, self.town = row, row.town
        self.enter(Phase.RECORDING, self.actor.record.remote(row), timeout_s)

    def stop(self) -> None:
        """Ask the actor to stop its server; the actor is killed when it has done so, or takes too long."""
        if self.actor is not None and self.phase is not Phase.PLACING:
            self.enter(Phase.STOPPING, self.actor.stop.remote(), STOP_TIMEOUT_S)
        else:
            self.discard_actor()

    def discard_actor(self) -> None:
        """Kill the actor and wait for the next launch, if there will be one."""
        self.kill()
        if self.unusable:
            self.enter(Phase.RETIRED, None, math.inf)
        else:
            self.enter(Phase.WAITING, None, self.next_launch_s())

    def kill(self) -> None:
        if self.actor is not None:
            self.ray.kill(self.actor)
        self.actor, self.town, self.recordings_made = None, None, 0

    def next_launch_s(self) -> float:
        """Return the wait before the next launch: none at first, then exponential, with jitter per slot."""
        # few steps for a server that did start: it may well start again
        failures = self.failed_launches or min(self.fruitless_servers - 1, 3)
        if failures < 1:
            return 0.0
        jitter = random.Random(f"{self.name} {failures}").uniform(0.75, 1.25)
        return min(BACK_OFF_S * 2.0 ** min(failures - 1, 30), MAX_BACK_OFF_S) * jitter

    def take_answer(self) -> RecordingOutcome | None:
        """Enter the next phase with the answer of the pending call; return the outcome of a recording that ended."""
        answer = self.fetch_answer()
        if self.phase is Phase.PLACING:
            if answer is None:
                self.launch()
            else:
                self.launch_failed(answer[1])
        elif self.phase is Phase.STARTING:
            return self.after_start(answer or ("unready", "it did not answer"))
        elif self.phase is Phase.RECORDING:
            return self.after_recording(answer or ("server", "it did not answer"))
        elif self.phase is Phase.STOPPING:
            self.discard_actor()
        return None

    def fetch_answer(self) -> Answer | None:
        """Return what the pending call returned, if anything. An actor's death counts as its server's failure."""
        try:
            return self.ray.get(self.pending, timeout=STOP_TIMEOUT_S)
        except self.ray.exceptions.RayTaskError as error:  # an error that the actor does not handle: a bug
            self.log.exception(f"{self.name} met an error in this program: please report it.")
            return "fault", one_line(error.cause)
        except self.ray.exceptions.RayError:
            self.kill()
            return "server", f"{self.name} or its recorder died (see logs/{self.name}.log)."

    def go_on(self) -> RecordingOutcome | None:
        """Enter the next phase when the current one is over, or its answer has not come; return the outcome of a
        recording that timed out."""
        waited_s = time.monotonic() - self.phase_since
        if self.phase is Phase.WAITING:
            self.launch()
        elif self.phase is Phase.PLACING and waited_s < MAX_PLACEMENT_S:
            self.log.warning(f"{self.name} waits to be placed: {self.resources()}.")
            self.due = time.monotonic() + MAX_PLACEMENT_S - waited_s
        elif self.phase is Phase.PLACING:
            self.reason = f"Ray did not place {self.name} within {waited_s:.0f} s: {self.resources()}."
            self.unusable = True
            self.discard_actor()
        elif self.phase is Phase.STARTING:
            self.launch_failed(f"{self.name} did not answer within {waited_s:.0f} s.")
            self.stop()
        elif self.phase is Phase.RECORDING:
            return self.after_recording(("server", f"it was not finished after {waited_s:.0f} s, its deadline."))
        elif self.phase is Phase.STOPPING:
            self.discard_actor()
        return None

    def resources(self) -> str:
        """Return, for a message, which resources an actor needs and which Ray has."""
        total, free = self.ray.cluster_resources().get("CPU", 0), self.ray.available_resources().get("CPU", 0)
        return f"it needs 1 CPU, and of Ray's {total:g} there are {free:g} free"

    def after_start(self, answer: Answer) -> RecordingOutcome | None:
        """Enter READY, or wait for another launch; return an outcome if the disk failed."""
        kind, reason = answer
        if kind == "disk":
            return RecordingOutcome(None, kind, reason, 0.0)
        if kind == "ready":
            self.failed_launches = 0
            self.enter(Phase.READY, None, math.inf)
        elif kind == "unusable":
            self.reason, self.unusable = reason, True
            self.log.error(f"{self.name} cannot be used: {reason}")
            self.stop()
        else:
            self.launch_failed(reason)
        return None

    def launch_failed(self, reason: str) -> None:
        """Count and log a failed launch, and wait for the next."""
        self.failed_launches, self.reason = self.failed_launches + 1, reason
        wait_s = self.next_launch_s()
        self.log.warning(
            f"{self.name}: launch {self.failed_launches} in a row failed, the next in {wait_s:.0f} s: {reason}"
        )
        self.enter(Phase.WAITING, None, wait_s)

    def after_recording(self, answer: Answer) -> RecordingOutcome:
        """Return the recording's outcome; replace the server if it failed or the recording did."""
        kind, reason = answer
        outcome, self.row = RecordingOutcome(self.row, kind, reason, time.monotonic() - self.phase_since), None
        if kind in ("done", "gate"):
            self.recordings_made, self.fruitless_servers = self.recordings_made + 1, 0
            self.enter(Phase.READY, None, math.inf)
        else:
            self.fruitless_servers += kind == "server" and not self.recordings_made
            self.stop()
        return outcome
