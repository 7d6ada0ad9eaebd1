"""The driver's side of the pool: hands items to actors and says what became of each."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Generic, Literal

from infra.actor_pool.limits import ItemTimeout, Limits
from infra.actor_pool.placement import Needs, alive_nodes
from infra.actor_pool.slot import STOP_TIMEOUT_S, Ended, Item, Phase, Slot
from infra.actor_pool.watching import LOSSES, ActorEnd, ActorState, PoolWatcher, host_names

MAX_LOST_PER_SLOT = 3
"""If so many items in a row, per slot, lost their actor, the actors cannot work."""
MAX_WAIT_S = 10.0
"""Longest wait for an answer before the pool looks at its slots, and at Ray's nodes, again."""


class PoolError(RuntimeError):
    """The pool cannot go on. The text is a reason in one sentence or more."""


class NoActor(PoolError):
    """No actor can be placed or started."""


class ActorsFail(PoolError):
    """The actors fail in every item."""

    def __init__(self, items: int, reason: str) -> None:
        super().__init__(reason)
        self.items = items
        """How many in a row lost their actor."""


class FatalFault(PoolError):
    """An actor says that the run must end."""


@dataclass(frozen=True)
class Outcome(Generic[Item]):
    """What became of an item, or what its actor reports meanwhile."""

    item: Item
    kind: Literal["done", "again", "failed", "report"]
    """"again": it failed and was put back. "failed": it is given up."""
    value: Any
    """The result of an item that is done, the reason of one that failed, or the report."""


class ItemQueue(Generic[Item]):
    """The items that no actor has in hand, in their order."""

    def __init__(self, items: Iterable[Item], key: Callable[[Item], Hashable]) -> None:
        """`key(item)` is its name in messages, different for each."""
        self.remaining, self.key = deque(items), key

    def take(self, last: Item | None) -> Item:
        """Remove and return the next item, for an actor that did `last` before."""
        return self.remaining.popleft()


class ActorPool(Generic[Item]):
    """Actors on Ray's nodes; a context manager that stops them all.

    Ray places the actors by what they need. An actor that does not start is started again after a growing wait; one
    that dies, hangs or says that it failed is replaced, and its item goes to another without counting an attempt. An
    item that fails on a working actor is put back and then given up. New nodes are used as they join, and of lost ones
    the items in hand are done again. Nothing waits without a limit.
    """

    def __init__(
        self,
        ray: Any,
        name: str,
        create_actor: Callable[[Any, str], Any],
        size: int | Literal["fit"],
        needs: Needs,
        limits: Limits,
        timeout: ItemTimeout,
        log: logging.Logger | logging.LoggerAdapter,
        watcher: PoolWatcher | None = None,
    ) -> None:
        """`create_actor(options, name)` returns a new `PoolActor` made with these options of `ray.remote`; slots are
        `name`0, `name`1 and so on. `size` "fit": as many as Ray's nodes hold. The deadline counts from now."""
        self.ray, self.name, self.create_actor, self.size = ray, name, create_actor, size
        self.needs, self.limits, self.timeout, self.log = needs, limits, timeout, log
        self.watcher = watcher or PoolWatcher()
        self.deadline = time.monotonic() + limits.run_s
        self.slots: list[Slot[Item]] = []
        self.names = 0
        self.key: Callable[[Item], Hashable] = str
        self.attempts: Counter[Hashable] = Counter()
        self.actors_lost: Counter[Hashable] = Counter()
        self.lost_in_a_row: dict[Hashable, str] = {}
        """Item -> why its actor failed, since the last item whose actor did not."""
        self.losses: Counter[str] = Counter()
        """What failed, by kind, in words that go with the actors' name."""
        self.never_set = threading.Event()
        """For timed waits."""

    def __enter__(self) -> ActorPool[Item]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def outcomes(self, queue: ItemQueue[Item]) -> Iterator[Outcome[Item]]:
        """Keep every actor busy until no item remains; yield what becomes of them.

        Items may be added to the queue meanwhile. At the pool's deadline items remain in the queue. PoolError when no
        actor can be started, all fail while they work, or one has a fatal fault.
        """
        self.key = queue.key
        while queue.remaining or self.working:
            if time.monotonic() >= self.deadline:
                self.put_back(queue)
                return
            self.fit_size(queue)
            for slot in self.in_phase(Phase.READY):
                if queue.remaining:
                    item = queue.take(slot.last_item)
                    slot.work(item, self.timeout.seconds_for(item))
            self.check_actors()
            answered = self.wait(queue)
            for slot in list(self.slots):
                yield from self.look_after(slot, answered, queue)
            self.watcher.look(self.states)

    def put_back(self, queue: ItemQueue[Item]) -> None:
        """Put the items in hand back into the queue; their actors end with the pool."""
        for slot in self.in_phase(Phase.WORKING):
            assert slot.item is not None
            queue.remaining.append(slot.item)
            slot.item = None

    def states(self) -> list[ActorState]:
        """Return what each slot is doing."""
        hosts, now = host_names(self.ray.nodes()), time.monotonic()
        return [
            ActorState(
                slot.name, hosts.get(slot.node, ""), slot.phase.value, now - slot.phase_since,
                "" if slot.item is None else str(self.key(slot.item)),
                slot.items_before + slot.items_done, max(slot.actors - 1, 0), slot.usage, slot.why,
            )
            for slot in self.slots
        ]  # fmt: skip

    def actor_ended(self, end: ActorEnd) -> None:
        """Count a loss, and pass on how an actor ended with its host's name in place of the node's id."""
        if end.kind in LOSSES:
            self.losses[end.kind] += 1
        self.watcher.actor_ended(replace(end, node=host_names(self.ray.nodes()).get(end.node, "")))

    def in_phase(self, *phases: Phase) -> list[Slot[Item]]:
        return [slot for slot in self.slots if slot.phase in phases]

    @property
    def working(self) -> int:
        """How many items actors have in hand."""
        return len(self.in_phase(Phase.WORKING))

    def fit_size(self, queue: ItemQueue[Item]) -> None:
        """Open slots, at most one per item; close those without an actor that Ray's nodes have no more room for."""
        wanted = max(1, self.needs.room(alive_nodes(self.ray))) if self.size == "fit" else self.size
        usable = [slot for slot in self.slots if slot.phase is not Phase.RETIRED]
        for slot in reversed(usable[1:]):
            if len(usable) > wanted and slot.without_place:
                slot.kill()
                usable.remove(slot)
                self.slots.remove(slot)
        most = min(wanted, len(queue.remaining) + self.working)
        while len(self.slots) < most:
            self.open_slot()

    def open_slot(self) -> None:
        name = f"{self.name}{self.names}"
        first_start_in_s = len(self.in_phase(Phase.WAITING)) * self.limits.stagger_s
        self.names += 1
        self.slots.append(
            Slot(
                self.ray, name, lambda: self.create_actor(self.needs.options(), name),
                lambda: self.needs.lacking(self.ray), self.limits, first_start_in_s, self.log, self.actor_ended,
            )
        )  # fmt: skip

    def check_actors(self) -> None:
        """Raise NoActor when no actor can be started, ActorsFail when they fail in every item."""
        if all(slot.hopeless for slot in self.slots):
            raise NoActor(" ".join(dict.fromkeys(slot.reason for slot in self.slots)))
        if len(self.lost_in_a_row) > MAX_LOST_PER_SLOT * len(self.slots) + MAX_LOST_PER_SLOT:
            raise ActorsFail(len(self.lost_in_a_row), next(reversed(self.lost_in_a_row.values())))

    def is_due(self, slot: Slot[Item], queue: ItemQueue[Item]) -> bool:
        """Tell whether a slot's deadline counts: a new actor is only started for an item that no other could take."""
        ready_soon = self.in_phase(Phase.PLACING, Phase.STARTING, Phase.READY)
        return slot.phase is not Phase.WAITING or len(queue.remaining) > len(ready_soon)

    def wait(self, queue: ItemQueue[Item]) -> list[Any]:
        """Wait for the first answer, or until a slot is due; return the calls that were answered."""
        pending = [call for slot in self.slots for call in (slot.pending, slot.asked) if call is not None]
        dues = [slot.due for slot in self.slots if self.is_due(slot, queue)] + [slot.ask_at for slot in self.slots]
        wait_s = min(max(min([*dues, self.deadline]) - time.monotonic(), 0.0), MAX_WAIT_S)
        if pending:
            answered, _ = self.ray.wait(pending, num_returns=1, timeout=wait_s)
            return answered
        self.never_set.wait(wait_s)
        return []

    def look_after(self, slot: Slot[Item], answered: list[Any], queue: ItemQueue[Item]) -> Iterator[Outcome[Item]]:
        """Take a slot's answer, or do what is due; yield what became of its item."""
        ended = None
        if slot.pending is not None and slot.pending in answered:
            if slot.phase is Phase.WORKING and self.limits.report_s is not None:
                if slot.asked is not None:
                    yield from self.reports(slot)
                slot.ask_for_reports()  # the last ones
                yield from self.reports(slot)
            ended = slot.take_answer()
        elif slot.asked is not None and slot.asked in answered:
            yield from self.reports(slot)
        elif slot.due <= time.monotonic() and self.is_due(slot, queue):
            ended = slot.go_on()
        elif slot.ask_at <= time.monotonic():
            slot.ask_for_reports()
        if ended is not None:
            yield self.settle(slot, ended, queue)

    def reports(self, slot: Slot[Item]) -> Iterator[Outcome[Item]]:
        assert slot.item is not None
        for report in slot.take_reports():
            yield Outcome(slot.item, "report", report)

    def settle(self, slot: Slot[Item], ended: Ended[Item], queue: ItemQueue[Item]) -> Outcome[Item]:
        """Put a failed item back, or give it up; return what became of an item. FatalFault."""
        item, kind, value = ended.item, ended.kind, ended.value
        if kind == "fatal" or item is None:
            raise FatalFault(value)
        key = queue.key(item)
        if kind == "actor":
            self.lost_in_a_row[key] = value
            self.actors_lost[key] += 1
            lost = self.actors_lost[key]
            self.log.warning(f"{slot.name} is replaced, {key} goes to another {self.name}: {value}")
            if lost < self.limits.actors_lost:
                queue.remaining.append(item)
                return Outcome(item, "again", value)
            return Outcome(item, "failed", f"{lost} {self.name}s failed with it in hand, the last: {value}")
        if kind == "fault":
            self.log.warning(f"{key} failed on {slot.name}: {value}")
            self.attempts[key] += 1
            if self.attempts[key] < self.limits.attempts:
                queue.remaining.appendleft(item)
                return Outcome(item, "again", value)
            return Outcome(item, "failed", value)
        self.lost_in_a_row.clear()
        self.timeout.learn(item, ended.seconds)
        slot.recycle_if_due()
        return Outcome(item, "done", value)

    def close(self) -> None:
        """Ask every actor to stop, wait a little, then kill all actors; log what failed, by kind."""
        for slot in self.slots:
            slot.stop()
        stopping = [slot.pending for slot in self.in_phase(Phase.STOPPING)]
        if stopping:
            self.ray.wait(stopping, num_returns=len(stopping), timeout=STOP_TIMEOUT_S)
        for slot in self.slots:
            slot.kill()
        counts = [f"{count} {kind}" for kind, count in sorted(self.losses.items()) if count]
        if counts:
            self.log.info(f"{self.name.capitalize()}s lost: {', '.join(counts)}.")
