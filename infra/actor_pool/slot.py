"""One slot of the pool: an actor that is placed, started, given work, watched, stopped and replaced.

Nothing here blocks for long. A slot always has a pending call or a deadline, and the pool waits for whichever comes
first.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, TypeVar

from infra.actor_pool.limits import Limits
from infra.actor_pool.placement import node_id
from infra.actor_pool.watching import ActorEnd, Usage
from infra.reading import one_line

Item = TypeVar("Item")
Answer = tuple[str, Any] | tuple[str, Any, Usage]
"""Outcome of a call, with its result, or its reason in a sentence. Of `start`: "ready"; "unready", another start may
work; "unusable", none would. Of `work`: "done"; "fault" of the item; "actor", a fault of the actor. Of both: "fatal",
which ends the run. `work` may add what the actor holds in memory by now."""
MAX_FAILED_STARTS = 5
"""After so many failed starts in a row a slot is hopeless. It keeps trying while any other slot is not."""
BACK_OFF_S, MAX_BACK_OFF_S = 2.0, 300.0
"""Wait after a failed start; it doubles with each further one, up to the maximum."""
PLACEMENT_WARNING_S, MAX_PLACEMENT_S = 60.0, 600.0
"""After so long a warning says that Ray has not placed the actor; after so long the slot is hopeless until it has."""
STOP_TIMEOUT_S = 20.0
"""An actor that was asked to stop is killed after so long."""


class PoolActor:
    """What the pool asks of an actor. It has two threads: `stop` and `reports` are called while `work` runs."""

    def placed(self) -> str:
        """Return the id of its node: that it answers shows that Ray has placed it."""
        return node_id()

    def start(self) -> Answer:
        """Prepare for work, once."""
        return "ready", ""

    def work(self, item: Any) -> Answer:
        """Do one item. What it raises is a fault of the item, and logged as a bug."""
        raise NotImplementedError

    def reports(self) -> list[Any]:
        """Return what there is to report since the last call; only called where the pool's limits say so."""
        return []

    def stop(self) -> None:
        """Give back what `start` took; another call may hang meanwhile. The process ends afterwards."""


class Phase(Enum):
    """What a slot is doing."""

    WAITING = "waiting"
    """For its next start; there may be no actor."""
    PLACING = "placing"
    STARTING = "starting"
    READY = "ready"
    WORKING = "working"
    STOPPING = "stopping"
    RETIRED = "retired"
    """No start would help."""


@dataclass
class Ended(Generic[Item]):
    """How an item ended on a slot."""

    item: Item | None
    """None if a start had a fatal fault."""
    kind: str
    """"done", "fault", "actor" or "fatal", as `PoolActor.work` answers."""
    value: Any
    seconds: float


class Slot(Generic[Item]):
    """Drives one actor through its phases."""

    def __init__(
        self,
        ray: Any,
        name: str,
        create_actor: Callable[[], Any],
        lacking: Callable[[], str],
        limits: Limits,
        first_start_in_s: float,
        log: Any,
        tell: Callable[[ActorEnd], None],
    ) -> None:
        """`create_actor()` returns a new actor, `lacking()` what it needs of Ray; `tell` takes how actors ended."""
        self.ray, self.name, self.create_actor, self.lacking = ray, name, create_actor, lacking
        self.limits, self.tell = limits, tell
        self.log: logging.Logger | logging.LoggerAdapter = log
        self.phase = Phase.WAITING
        self.actor: Any = None
        self.pending: Any = None
        """Ray's reference to the call that the actor has yet to answer."""
        self.phase_since = time.monotonic()
        self.due = self.phase_since + first_start_in_s
        """When `go_on` is to be called if no answer has come."""
        self.item: Item | None = None
        self.last_item: Item | None = None
        """What the running actor did last."""
        self.allowed_s = math.inf
        """What the item in hand may take, or take without a report."""
        self.asked: Any = None
        """Ray's reference to reports that the actor was asked for."""
        self.ask_at = math.inf
        self.node = ""
        self.items_done = self.items_before = 0
        """By the running actor, and by those before it."""
        self.actors = 0
        """How many were made."""
        self.born = self.phase_since
        """When the running actor was."""
        self.usage = Usage()
        self.failed_starts = 0
        """In a row."""
        self.fruitless_actors = 0
        """Actors in a row that failed before they had done anything."""
        self.reason = ""
        """Why the last start failed."""
        self.why = ""
        """Why the last actor ended."""
        self.unplaced = False
        """Ray has not placed the actor in time."""
        self.unusable = False
        """No start would help."""

    @property
    def hopeless(self) -> bool:
        return self.unusable or self.unplaced or self.failed_starts >= MAX_FAILED_STARTS

    @property
    def without_place(self) -> bool:
        return self.actor is None or self.phase is Phase.PLACING

    def enter(self, phase: Phase, pending: Any, timeout_s: float) -> None:
        self.phase, self.pending, self.phase_since = phase, pending, time.monotonic()
        self.due = self.phase_since + timeout_s
        self.asked, self.ask_at = None, math.inf

    def launch(self) -> None:
        """Create the actor if there is none; else have it start."""
        if self.actor is None:
            self.actor = self.create_actor()
            self.actors, self.born = self.actors + 1, time.monotonic()
            self.enter(Phase.PLACING, self.actor.placed.remote(), PLACEMENT_WARNING_S)
        else:
            self.enter(Phase.STARTING, self.actor.start.remote(), self.limits.start_s)

    def work(self, item: Item, timeout_s: float) -> None:
        self.item = self.last_item = item
        self.allowed_s = timeout_s
        self.enter(Phase.WORKING, self.actor.work.remote(item), timeout_s)
        if self.limits.report_s is not None:
            self.ask_at = time.monotonic() + self.limits.report_s

    def stop(self) -> None:
        """Ask the actor to stop; it is killed when it has done so, or takes too long."""
        if self.without_place:
            self.discard_actor()
        else:
            self.enter(Phase.STOPPING, self.actor.stop.remote(), STOP_TIMEOUT_S)

    def discard_actor(self) -> None:
        """Kill the actor and wait for the next start, if there will be one."""
        self.kill()
        if self.unusable:
            self.enter(Phase.RETIRED, None, math.inf)
        else:
            self.enter(Phase.WAITING, None, self.next_start_s())

    def kill(self) -> None:
        if self.actor is not None:
            self.ray.kill(self.actor)
        self.items_before += self.items_done
        self.actor, self.last_item, self.items_done, self.node, self.usage = None, None, 0, "", Usage()

    def has_ended(self, kind: str, reason: str) -> None:
        """Tell how the actor ended, or that it did not start."""
        self.why = reason
        self.tell(ActorEnd(self.name, self.node, kind, reason))

    def recycle_if_due(self) -> None:
        """Replace the actor, which has just done an item, if a limit says so."""
        due = self.limits.recycling.reason(self.items_done, time.monotonic() - self.born, self.usage)
        if due is not None:
            kind, why = due
            self.has_ended(kind, f"{self.name} is replaced: {why}.")
            self.stop()

    def next_start_s(self) -> float:
        """Return the wait before the next start: none at first, then exponential, with jitter per slot."""
        # few steps for an actor that did start: it may well start again
        failures = self.failed_starts or min(self.fruitless_actors - 1, 3)
        if failures < 1:
            return 0.0
        jitter = random.Random(f"{self.name} {failures}").uniform(0.75, 1.25)
        return min(BACK_OFF_S * 2.0 ** min(failures - 1, 30), MAX_BACK_OFF_S) * jitter

    def take_answer(self) -> Ended[Item] | None:
        """Enter the next phase with the answer of the pending call; return how an item ended, if one did."""
        if self.phase is Phase.PLACING:
            self.after_placing()
        elif self.phase is Phase.STARTING:
            return self.after_start(self.fetch_answer())
        elif self.phase is Phase.WORKING:
            return self.after_work(self.fetch_answer())
        elif self.phase is Phase.STOPPING:
            self.discard_actor()
        return None

    def fetch_answer(self) -> Answer:
        """Return what the pending call returned. An actor's death counts as its own failure."""
        try:
            answer = self.ray.get(self.pending, timeout=STOP_TIMEOUT_S)
        except self.ray.exceptions.RayTaskError as error:  # an error that the actor does not handle: a bug
            self.log.exception(f"{self.name} met an error in this program: please report it.")
            return "fault", one_line(error.cause)
        except self.ray.exceptions.RayError:
            return "actor", self.epitaph()
        if answer[0] == "actor":
            self.has_ended("failed", answer[1])
        return answer

    def epitaph(self) -> str:
        """Return why the actor is gone, tell it, and drop its handle."""
        gone = [node for node in self.ray.nodes() if node["NodeID"] == self.node and not node["Alive"]]
        if gone:
            kind = "lost with their node"
            reason = f"{self.name} was lost with its node {gone[0].get('NodeManagerHostname')}."
        else:
            kind, reason = "died", self.limits.died.format(name=self.name)
        self.has_ended(kind, reason)
        self.kill()
        return reason

    def after_placing(self) -> None:
        """Start the actor, or wait for another one if it died before that."""
        try:
            self.node = self.ray.get(self.pending, timeout=STOP_TIMEOUT_S)
        except self.ray.exceptions.RayTaskError as error:
            self.start_failed(one_line(error.cause))
        except self.ray.exceptions.RayError:
            self.start_failed(self.epitaph())
        else:
            self.unplaced = False
            self.launch()

    def go_on(self) -> Ended[Item] | None:
        """Enter the next phase when the current one is over, or its answer has not come; return how an item ended that
        timed out."""
        waited_s = time.monotonic() - self.phase_since
        if self.phase is Phase.WAITING:
            self.launch()
        elif self.phase is Phase.PLACING and waited_s < MAX_PLACEMENT_S:
            self.log.warning(f"{self.name} waits to be placed: {self.lacking()}.")
            self.due = self.phase_since + MAX_PLACEMENT_S
        elif self.phase is Phase.PLACING:  # it goes on waiting: a node may join while others work
            self.reason = f"Ray did not place {self.name} within {waited_s:.0f} s: {self.lacking()}."
            self.has_ended("not placed", self.reason)
            self.unplaced, self.due = True, math.inf
        elif self.phase is Phase.STARTING:
            self.start_failed(f"{self.name} did not answer within {waited_s:.0f} s.")
            self.stop()
        elif self.phase is Phase.WORKING:
            reason = f"it was not finished after {waited_s:.0f} s, its deadline."
            self.has_ended("past their deadline", reason)
            return self.after_work(("actor", reason))
        elif self.phase is Phase.STOPPING:
            self.discard_actor()
        return None

    def after_start(self, answer: Answer) -> Ended[Item] | None:
        """Enter READY, or wait for another start; return a fatal fault."""
        kind, reason = answer[:2]
        if kind == "fatal":
            return Ended(None, kind, reason, 0.0)
        if kind == "ready":
            self.failed_starts = 0
            self.enter(Phase.READY, None, math.inf)
        elif kind == "unusable":
            self.reason, self.unusable = reason, True
            self.has_ended("unusable", reason)
            self.log.error(f"{self.name} cannot be used: {reason}")
            self.stop()
        else:
            self.start_failed(reason)
        return None

    def start_failed(self, reason: str) -> None:
        """Count and log a failed start, and wait for the next."""
        self.failed_starts, self.reason = self.failed_starts + 1, reason
        self.has_ended("did not start", reason)
        wait_s = self.next_start_s()
        self.log.warning(
            f"{self.name}: launch {self.failed_starts} in a row failed, the next in {wait_s:.0f} s: {reason}"
        )
        self.enter(Phase.WAITING, None, wait_s)

    def after_work(self, answer: Answer) -> Ended[Item]:
        """Return how the item ended; replace the actor if it failed or the item did."""
        kind, value, *usage = answer
        self.usage = usage[0] if usage else Usage()
        ended, self.item = Ended(self.item, kind, value, time.monotonic() - self.phase_since), None
        if kind == "done":
            self.items_done, self.fruitless_actors = self.items_done + 1, 0
            self.enter(Phase.READY, None, math.inf)
        else:
            self.fruitless_actors += kind == "actor" and not self.items_done
            if kind == "fault":
                self.has_ended("replaced after a fault", f"an item failed on {self.name}: {one_line(value)}")
            self.stop()
        return ended

    def ask_for_reports(self) -> None:
        self.asked, self.ask_at = self.actor.reports.remote(), math.inf

    def take_reports(self) -> list[Any]:
        """Return the reports that the actor was asked for; they put off the item's deadline."""
        try:
            reports = self.ray.get(self.asked, timeout=STOP_TIMEOUT_S)
        except self.ray.exceptions.RayError:  # the death of an actor shows in its work
            reports = []
        now = time.monotonic()
        self.asked, self.ask_at = None, now + (self.limits.report_s or math.inf)
        if reports:
            self.due = now + self.allowed_s
        return reports
