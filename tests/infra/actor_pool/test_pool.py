"""Whatever actors and items do, the pool ends, and says what became of each; on a Ray without processes."""

from __future__ import annotations

import itertools
import logging

import pytest

from infra.actor_pool import (
    ActorEnd,
    ActorPool,
    ActorsFail,
    FatalFault,
    ItemQueue,
    ItemTimeout,
    Limits,
    Needs,
    NoActor,
    PoolWatcher,
    Recycling,
    Usage,
)
from infra.actor_pool.slot import BACK_OFF_S, MAX_BACK_OFF_S, MAX_FAILED_STARTS, MAX_PLACEMENT_S
from tests.fake_ray import HANGS, FakeRay, on_this_clock

LOG = logging.getLogger("told")
DONE, READY = ("done", 7), ("ready", "")
DIED = FakeRay.exceptions.RayActorError("died")
LIMIT_S = 50.0


class Work:
    """A pool of two actors and six items on a fake Ray, with actors that answer as the test says."""

    def __init__(self, clock) -> None:
        self.start = lambda name: READY
        self.work = lambda name, item: DONE
        self.ray = FakeRay(clock, lambda name: self.start(name), lambda name, item: self.work(name, item), 2)
        self.queue = ItemQueue([f"i{number}" for number in range(6)], key=str)
        self.size, self.limits = 2, Limits(start_s=30.0)
        self.pool, self.watcher = None, None

    def run(self) -> dict[str, list[str]]:
        """Return the items by what became of them."""
        ended: dict[str, list[str]] = {"done": [], "again": [], "failed": [], "report": []}
        timeout = ItemTimeout(lambda item: 1, setup_s=0, unknown_rate_s=LIMIT_S, limit_s=LIMIT_S)
        self.pool = ActorPool(
            self.ray, "worker", self.ray.create, self.size, Needs(), self.limits, timeout, LOG, self.watcher
        )
        with self.pool:
            for outcome in self.pool.outcomes(self.queue):
                ended[outcome.kind].append(outcome.item)
        return ended


@pytest.fixture
def world(monkeypatch, caplog):
    caplog.set_level(logging.INFO, "told")
    yield (made := Work(on_this_clock(monkeypatch)))
    assert made.ray.count("made") == made.ray.count("killed")  # whatever happened


def once(answer):
    answers = itertools.chain([answer], itertools.repeat(DONE))
    return lambda name, item: next(answers)


@pytest.mark.parametrize(
    ("answer", "loss"),
    [(DIED, "died"), (HANGS, "past their deadline"), (("actor", "it says so"), "failed")],
)
def test_an_actor_that_dies_hangs_or_says_that_it_failed_costs_no_item(world, caplog, answer, loss):
    world.work = once(answer)
    ended = world.run()
    assert sorted(ended["done"]) == [f"i{number}" for number in range(6)]
    assert (ended["again"], ended["failed"]) == (["i0"], [])
    assert world.pool.losses == {loss: 1}
    assert f"Workers lost: 1 {loss}." in caplog.text


@pytest.mark.parametrize("answer", [("fault", "bad"), FakeRay.exceptions.RayTaskError(KeyError("bad"))])
def test_an_item_that_always_fails_is_given_up_after_its_attempts(world, answer):
    world.work = lambda name, item: answer if item == "i2" else DONE
    ended = world.run()
    assert ended["failed"] == ["i2"]
    assert ended["again"] == ["i2"] * (world.limits.attempts - 1)
    assert len(ended["done"]) == 5


@pytest.mark.parametrize("answer", [DIED, HANGS])
def test_an_item_that_takes_actor_after_actor_along_is_given_up(world, answer):
    world.work = lambda name, item: answer if item == "i2" else DONE
    assert world.run()["failed"] == ["i2"]
    assert world.ray.count("work") == 5 + world.limits.actors_lost


def test_actors_that_all_fail_end_the_run(world):
    world.queue = ItemQueue([f"i{number}" for number in range(100)], key=str)
    world.work = lambda name, item: DIED
    with pytest.raises(ActorsFail, match=r"worker. died\.") as caught:
        world.run()
    assert caught.value.items == 3 * 2 + 3 + 1


@pytest.mark.parametrize("answer", [("unready", "no display."), HANGS, DIED])
def test_actors_that_never_start_end_the_run_after_growing_waits(world, answer):
    world.start = lambda name: answer
    with pytest.raises(NoActor, match=r"worker0 di|no display"):
        world.run()
    assert world.pool.losses["did not start"] >= 2 * MAX_FAILED_STARTS - 1
    assert world.ray.clock.now > BACK_OFF_S


def test_what_no_start_can_cure_is_tried_once(world):
    world.start = lambda name: ("unusable", "wrong version.")
    with pytest.raises(NoActor, match=r"^wrong version\.$"):
        world.run()
    assert world.ray.count("start") == 2


def test_a_fatal_fault_ends_the_run_at_once(world):
    world.work = lambda name, item: ("fatal", "the disk is full")
    with pytest.raises(FatalFault, match="the disk is full"):
        world.run()
    assert world.ray.count("work") <= 2


def test_back_off_grows_is_bounded_and_differs(world):
    world.run()
    waits = []
    for slot in world.pool.slots:
        for slot.failed_starts in range(15):
            waits.append(slot.next_start_s())
    first, second = waits[:15], waits[15:]
    assert first[0] == 0
    assert 0.75 * BACK_OFF_S <= first[1] <= 1.25 * BACK_OFF_S
    assert all(later > sooner for sooner, later in itertools.pairwise(first[1:7]))
    assert max(waits) <= 1.25 * MAX_BACK_OFF_S
    assert first[1:] != second[1:]
    slot = world.pool.slots[0]
    assert first == [slot.next_start_s() for slot.failed_starts in range(15)]  # drawn from a seed


def test_reports_put_the_deadline_off(world):
    world.limits = Limits(start_s=30.0, report_s=10.0)
    world.queue = ItemQueue(["long"], key=str)
    world.ray.on_reports = lambda name: ["a step"]
    world.work = lambda name, item: lambda: DONE if world.ray.clock.now > 3 * LIMIT_S else HANGS
    ended = world.run()
    assert ended["done"] == ["long"]
    assert len(ended["report"]) > 10


class Told(PoolWatcher):
    """Keeps what a pool tells."""

    def __init__(self) -> None:
        self.ends: list[ActorEnd] = []
        self.states: list = []

    def actor_ended(self, end):
        self.ends.append(end)

    def look(self, states):
        self.states = states()


@pytest.mark.parametrize(
    ("recycling", "kind", "why"),
    [
        (Recycling(items=2), "recycled by count", "it has done 2 items"),
        (Recycling(age_s=600), "recycled by age", "it is 10 minutes old, the limit is 10"),
        (Recycling(memory_bytes=2**30), "recycled by memory", "it holds 1.5 GiB, the limit is 1.0 GiB"),
        (
            Recycling(gpu_memory_bytes=2**31), "recycled by video memory",
            "it holds 3.0 GiB of video memory, the limit is 2.0 GiB",
        ),
    ],
)  # fmt: skip
def test_an_actor_that_works_is_replaced_when_it_is_due_and_the_reason_is_told(world, recycling, kind, why):
    world.size, world.limits, world.watcher = 1, Limits(start_s=30.0, recycling=recycling), Told()
    done_by_actor = itertools.count(1)

    def work(name, item):
        world.ray.clock.now += 300
        large = next(done_by_actor) % 2 == 0
        return "done", 7, Usage(int(1.5 * 2**30) if large else 0, 3 * 2**30 if large else None)

    world.work = work
    assert len(world.run()["done"]) == 6
    assert world.ray.count("made") == 3
    assert world.watcher.ends == [ActorEnd("worker0", "node0", kind, f"worker0 is replaced: {why}.")] * 3
    assert not world.pool.losses


def test_the_pools_deadline_puts_back_what_is_in_hand(world):
    world.limits = Limits(start_s=30.0, run_s=20.0)
    world.work = lambda name, item: HANGS if item in ("i3", "i4") else DONE
    ended = world.run()
    assert ended["done"] == ["i0", "i1", "i2"]
    assert ended["failed"] == ended["again"] == []
    assert set(world.queue.remaining) == {"i3", "i4", "i5"}
    assert world.ray.clock.now == 20.0
    assert world.ray.count("stop") == 2
    assert not world.pool.losses


def test_what_each_slot_does_is_told(world):
    world.watcher = Told()
    world.work = once(DIED)
    world.run()
    (end,) = world.watcher.ends
    assert end == ActorEnd("worker0", "node0", "died", "worker0 died.")
    first, second = world.watcher.states
    assert (first.name, first.restarts, first.why) == ("worker0", 1, "worker0 died.")
    assert (second.name, second.node, second.restarts, second.why) == ("worker1", "node0", 0, "")
    assert first.items_done + second.items_done == 6


# -- nodes that come and go ---------------------------------------------------------------------------------------


def test_a_node_that_joins_is_used(world):
    world.size = "fit"
    world.ray.cluster = {"node0": {"CPU": 1}}

    def work(name, item):
        world.ray.cluster["node1"] = {"CPU": 2}
        return HANGS if item == "i0" and name == "worker0" else DONE

    world.work = work
    ended = world.run()
    assert len(ended["done"]) == 6
    assert set(world.ray.places.values()) == {"node0", "node1"}
    assert len(world.ray.places) >= 3


def test_a_lost_node_costs_the_items_in_hand_and_no_more(world, caplog):
    world.size = "fit"
    world.ray.cluster = {"node1": {"CPU": 1}, "node0": {"CPU": 1}}

    def work(name, item):
        if item == "i1" and "node1" in world.ray.cluster:
            world.ray.lose_node("node1")
            return DIED
        return DONE

    world.work = work
    ended = world.run()
    assert (len(ended["done"]), ended["again"], ended["failed"]) == (6, ["i1"], [])
    assert "was lost with its node node1." in caplog.text
    assert world.pool.losses == {"lost with their node": 1}


def test_without_any_node_that_holds_an_actor_the_run_ends_and_says_what_is_lacking(world, caplog):
    world.size = "fit"
    world.ray.cluster = {"node0": {"CPU": 0}}
    with pytest.raises(
        NoActor, match=r"Ray did not place worker0 within 6.. s: it needs 1 CPU, and Ray's nodes have 0 "
    ):
        world.run()
    assert world.ray.clock.now < MAX_PLACEMENT_S + 30
    assert "worker0 waits to be placed: it needs 1 CPU" in caplog.text


def test_a_node_that_joins_late_is_used_all_the_same(world):
    world.ray.cluster = {"node0": {"CPU": 0}, "late": {"CPU": 0}}

    def nodes(known=world.ray.nodes):
        if world.ray.clock.now > MAX_PLACEMENT_S / 2:
            world.ray.cluster["late"]["CPU"] = 2
        return known()

    world.ray.nodes = nodes
    world.size = "fit"
    assert len(world.run()["done"]) == 6


@pytest.mark.parametrize(
    ("needs", "nodes", "room"),
    [
        (Needs(), [{"CPU": 4}, {"CPU": 2}], 6),
        (Needs(cpus=3), [{"CPU": 4}, {"CPU": 2}], 1),
        (Needs(carla=1), [{"CPU": 8, "carla": 4}, {"CPU": 8}], 4),
        (Needs(gpus=1 / 3), [{"CPU": 9, "GPU": 2}], 6),
        (Needs(gpus=0.5, carla=1), [{"CPU": 8, "GPU": 1, "carla": 4}, {"CPU": 8, "carla": 1}], 2),
        (Needs(), [], 0),
    ],
)
def test_room_is_counted_node_by_node(needs, nodes, room):
    assert needs.room(nodes) == room


def test_what_is_lacking_is_said_by_resource(world):
    world.ray.cluster = {"node0": {"CPU": 4, "GPU": 1}}
    assert Needs(gpus=0.5, carla=1).lacking(world.ray) == (
        "it needs 1 CPU and 0.5 GPU and 1 carla, and Ray's nodes have 4 CPU (4 free), 1 GPU (0 free), "
        "0 carla (0 free), and no node alone holds it"
    )
