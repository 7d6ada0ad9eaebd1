"""Who records what, and to whom failures are charged; without servers."""

from __future__ import annotations

import itertools
import logging
import shutil
from collections import Counter, namedtuple
from types import SimpleNamespace

import pytest

from infra.actor_pool import Recycling
from infra.actor_pool.slot import BACK_OFF_S, MAX_FAILED_STARTS, MAX_PLACEMENT_S
from infra.carla_servers import CarlaServerError, NotReady, SimulatorSpec
from infra.storage import StorageError
from tasks.recording import pool as pool_module
from tasks.recording.actor import RecorderActor
from tasks.recording.errors import GateError, RecordingError, ServerFault
from tasks.recording.ledger import FAILED_RUNS, Ledger
from tasks.recording.pool import (
    MAX_ATTEMPTS,
    MAX_SERVERS_LOST,
    RECYCLING,
    SETUP_TIMEOUT_S,
    RecordingSummary,
    RecordingTimeout,
    record_plan,
    record_remaining,
    recording_limits,
)
from tasks.recording.progress import Progress
from tasks.recording.watch import RunWatch
from tasks.recording.work import RecordingQueue
from tests.fake_ray import HANGS, FakeRay, on_this_clock

LOG = logging.getLogger("told")
DIED = FakeRay.exceptions.RayActorError("died")
DONE, READY = ("done", ""), ("ready", "")


def row(number: int, town: str = "A", kind: str = "crossing") -> SimpleNamespace:
    return SimpleNamespace(
        recording_id=f"r{number}", scene_id=f"s{number}", variant="base", town=town, trajectory_type=kind,
        weather="clear_noon", split="train", ticks=60, windows=(0, 9),
    )  # fmt: skip


class Books(Ledger):
    """A ledger of recordings without files."""

    def __init__(self, folder) -> None:
        super().__init__(folder)
        self.made: set[str] = set()

    def is_done(self, recording_id: str) -> bool:
        return recording_id in self.made

    def mark_done(self, recording_id: str) -> None:
        self.made.add(recording_id)

    def states(self) -> dict[str, str]:
        return super().states() | dict.fromkeys(self.made, "done")


class World:
    """A pool on a fake Ray, with servers that start and record as the test says."""

    def __init__(self, folder, clock, rows, *, spares=(), servers=1, kind="embedded", cpus=None, made=()) -> None:
        self.ledger = Books(folder)
        self.ledger.made |= set(made)
        self.clock = clock
        self.start = lambda name: READY
        self.record = lambda name, row: DONE
        self.ray = FakeRay(
            clock, lambda name: self.start(name), lambda name, row: self.record(name, row),
            servers if cpus is None else cpus,
        )  # fmt: skip
        self.queue = RecordingQueue(folder, rows, spares, self.ledger, LOG)
        self.told: list[tuple] = []
        self.views: list[Progress] = []
        self.spec = SimulatorSpec(kind)
        self.folder, self.servers = folder, servers

    def run(
        self, every: int | None = None, timeout: RecordingTimeout | None = None, limit_s: float | None = None
    ) -> RecordingSummary:
        recycling = Recycling(items=every) if every else None
        record_remaining(
            self.ray, self.spec, self.folder, self.queue, self.servers, recording_limits(self.spec, recycling, limit_s),
            timeout or RecordingTimeout(), lambda *told: self.told.append(told), LOG,
            RunWatch(self.folder, self.queue, [self.views.append]),
        )  # fmt: skip
        return self.queue.summary()


@pytest.fixture
def world(tmp_path, monkeypatch, caplog):
    clock = on_this_clock(monkeypatch)
    caplog.set_level(logging.INFO, "told")
    made = []

    def make(rows=2, **options) -> World:
        rows = [row(number) for number in range(rows)] if isinstance(rows, int) else rows
        for earlier in made:
            earlier.ledger.close()
        made.append(World(tmp_path, clock, rows, **options))
        return made[-1]

    yield make
    for each in made:
        each.ledger.close()


def script(*answers):
    """Answer calls with these in turn, then with the last for ever."""
    rest = itertools.chain(answers, itertools.repeat(answers[-1]))
    return lambda *given: next(rest)


def test_a_server_stays_in_its_town_and_then_takes_the_busiest(world):
    towns = "ABCBCC"
    queue = world([row(number, town) for number, town in enumerate(towns)]).queue
    assert [left.town for left in queue.remaining] == sorted(towns)
    last = row(9, "B")
    assert [queue.take(last).recording_id, queue.take(last).recording_id] == ["r1", "r3"]
    assert queue.take(last).town == "C"
    assert queue.take(None).town == "C"


def test_a_server_that_does_not_start_backs_off_while_others_record(world, caplog):
    """The issue's case: three launches of one server fail."""
    pool = world(20, servers=2)
    failing = script(*[("unready", "no Vulkan device.")] * 3, READY)
    pool.start = lambda name: failing() if name == "server0" else READY
    pool.record = lambda name, row: DONE if name == "server0" else script(DONE)(row)
    done = pool.run()
    assert (done.recorded, done.faults) == (20, {})
    assert caplog.text.count("failed, the next in") == caplog.text.count("no Vulkan device.")
    assert "server0: launch 1 in a row failed" in caplog.text


def test_the_run_ends_when_no_server_can_start_and_says_why(world, caplog):
    pool = world(3, servers=2)
    pool.start = lambda name: ("unready", f"{name} found no display.")
    with pytest.raises(RecordingError, match=r"no server can be started: server0 found no display\. server1 found"):
        pool.run()
    assert pool.ray.count("start", "server0") >= MAX_FAILED_STARTS
    assert pool.views[-1].run.over
    assert pool.views[-1].sentences()[-2:] == [
        "server0 found no display. server1 found no display.",
        "The run has ended.",
    ]
    assert caplog.text.count("found no display") >= 2 * MAX_FAILED_STARTS  # every launch is in the log
    assert pool.clock.now > BACK_OFF_S


def test_launches_that_fail_now_and_then_never_end_a_run(world):
    """One in three, five hundred launches."""
    pool = world(500, servers=4)
    pool.start = script(*[READY, READY, ("unready", "silent exit")] * 1000)
    assert pool.run(every=1).recorded == 500


@pytest.mark.parametrize("reason", ["CARLA renders in software.", "the executable 'x' does not exist."])
def test_what_no_launch_can_cure_ends_the_run_at_once(world, reason):
    pool = world(3, servers=2)
    pool.start = lambda name: ("unusable", reason)
    with pytest.raises(RecordingError, match=f"no server can be started: {reason}$"):
        pool.run()
    assert pool.ray.count("start") == 2
    assert pool.clock.now < BACK_OFF_S


def test_one_unusable_server_leaves_the_work_to_the_others(world):
    pool = world(6, servers=2)
    pool.start = lambda name: ("unusable", "wrong GPU.") if name == "server0" else READY
    assert pool.run().recorded == 6
    assert pool.ray.count("start", "server0") == 1


def test_ten_kills_cost_no_recording(world):
    """A server's end is the server's: the recording in hand goes back unpunished."""
    pool = world(12, servers=2)
    kills = script(*[DIED, DONE] * 10, DONE)
    pool.record = lambda name, row: kills()
    done = pool.run()
    assert (done.recorded, done.faults) == (12, {})


@pytest.mark.parametrize("answer", [DIED, ("actor", "cameras [0] sent no image"), HANGS])
def test_a_recording_in_whose_hands_server_after_server_fails_is_charged(world, answer):
    pool = world(8, servers=2)
    pool.record = lambda name, row: answer if row.recording_id == "r3" else DONE
    done = pool.run()
    assert done.recorded == 7
    assert list(done.faults) == ["r3"]
    assert f"{MAX_SERVERS_LOST} servers failed with it in hand" in done.faults["r3"]
    tries = Counter(entry[2].recording_id for entry in pool.ray.log if entry[0] == "work")
    assert tries["r3"] == MAX_SERVERS_LOST
    assert set(tries.values()) == {1, MAX_SERVERS_LOST}


def test_servers_that_all_fail_while_recording_end_the_run(world):
    pool = world(100, servers=2)
    pool.record = lambda name, row: DIED
    with pytest.raises(RecordingError, match=r"the servers fail while they record, .* recordings in a row, the last"):
        pool.run()
    assert pool.ray.count("work") < 30


def test_a_fault_of_its_own_is_tried_three_times_on_fresh_servers(world):
    pool = world(3)
    pool.record = lambda name, row: ("fault", "a car could not be moved") if row.recording_id == "r0" else DONE
    done = pool.run()
    assert done.recorded == 2
    assert done.faults == {"r0": "A, crossing, clear_noon: a car could not be moved"}
    assert pool.ray.count("work") == 2 + MAX_ATTEMPTS
    assert pool.ray.count("made") == 1 + MAX_ATTEMPTS
    assert pool.ledger.reasons("failed") == done.faults


def test_an_error_that_nobody_foresaw_is_a_fault_and_in_the_log(world, caplog):
    pool = world(3)
    error = FakeRay.exceptions.RayTaskError(KeyError("weather"))
    pool.record = lambda name, row: error if row.recording_id == "r0" else DONE
    done = pool.run()
    assert done.recorded == 2
    assert "'weather'" in done.faults["r0"]
    assert "met an error in this program" in caplog.text


def test_a_recording_past_its_deadline_gets_another_server(world):
    pool = world(3)
    answers = script(HANGS, DONE)
    pool.record = lambda name, row: answers()
    done = pool.run(timeout=RecordingTimeout(50.0))
    assert (done.recorded, done.faults) == (3, {})
    assert 50 <= pool.clock.now < 100
    assert pool.ray.count("made") == 2


def test_the_timeout_follows_the_slowest_rate():
    timeout, long = RecordingTimeout(), row(0)
    before = timeout.seconds_for(long)
    timeout.learn(long, 12.0)
    timeout.learn(long, 6.0)
    assert SETUP_TIMEOUT_S + 12 < timeout.seconds_for(long) == SETUP_TIMEOUT_S + 120 < before
    assert RecordingTimeout(7.0).seconds_for(long) == 7.0


def test_a_launch_that_hangs_is_a_failed_launch(world, caplog):
    pool = world(2)
    starts = script(HANGS, READY)
    pool.start = lambda name: starts()
    assert pool.run().recorded == 2
    assert "server0 did not answer within" in caplog.text


def test_actors_are_asked_to_stop_before_they_are_killed(world):
    pool = world(4, servers=2)
    pool.record = script(("fault", "no"), DONE)
    pool.run(every=2)
    for number, entry in enumerate(pool.ray.log):
        if entry[0] == "killed":
            before = [e for e in pool.ray.log[:number] if e[1] == entry[1]]
            assert before[-1][0] == "stop", pool.ray.log
    assert pool.ray.count("made") == pool.ray.count("killed")


def test_an_actor_that_does_not_stop_is_killed_all_the_same(world):
    pool = world(2)
    promise = pool.ray.promise
    pool.ray.promise = lambda answer: promise(HANGS if pool.ray.log[-1][0] == "stop" else answer)
    assert pool.run(every=1).recorded == 2
    assert pool.ray.count("killed") == 2


@pytest.mark.parametrize(("every", "servers"), [(int(RECYCLING.items), 3), (None, 1)])
def test_a_server_is_replaced_before_it_has_leaked_much(world, every, servers):
    count = 2 * int(RECYCLING.items) + 1
    pool = world(count)
    assert pool.run(every).recorded == count
    assert pool.ray.count("made") == servers


def test_each_replacement_has_a_sentence_in_the_ledger(world):
    pool = world(4)
    answers = script(DIED, DONE, ("actor", "cameras [0] sent no image."), DONE)
    pool.record = lambda name, row: answers()
    pool.run(every=2)
    noted = [(event.server, event.node, event.kind, event.reason) for event in pool.ledger.events()]
    assert noted == [
        ("server0", "node0", "died", "server0 or its recorder died (see logs/server0.log)."),
        ("server0", "node0", "failed", "cameras [0] sent no image."),
        ("server0", "node0", "recycled by count", "server0 is replaced: it has done 2 items."),
    ]
    assert not pool.ledger.events(since=pool.ledger.events()[-1].at + 1)


def test_a_run_ends_at_its_deadline_and_the_next_goes_on(world):
    pool = world(5, servers=2)
    pool.record = lambda name, row: HANGS if row.recording_id in ("r3", "r4") else DONE
    done = pool.run(limit_s=40.0)
    assert (done.recorded, done.left, done.faults, done.total) == (3, 2, {}, 5)
    assert pool.clock.now == 40.0
    assert done.sentences() == [
        "Recorded 3; 0 of 5 were recorded before.",
        "2 recordings are left to the next run: this one reached its deadline.",
    ]
    sentence = "The run ended at its deadline of 40 s with 2 recordings left."
    assert [event.reason for event in pool.ledger.events()] == [sentence]
    assert sentence in pool.views[-1].sentences()
    assert not pool.ledger.reasons("failed")
    again = world([row(number) for number in range(5)], made=pool.ledger.made)
    assert again.run().recorded == 2


def test_the_last_view_is_that_of_the_whole_run(world):
    pool = world(5, servers=2, spares=SPARES)
    pool.record = lambda name, row: ("done", "too dark") if row.recording_id == "r1" else DONE
    pool.run()
    view = pool.views[-1]
    assert view.run.over
    assert (view.wanted, view.done, view.recorded, view.pairs) == (5, 5, 5, 10)
    assert view.losses == {"servers": {}, "recordings": {"rejected": 1}}
    assert sum(server.items_done for server in view.run.servers) == 6


def test_a_full_disk_ends_the_run_and_blames_no_server(world, caplog):
    pool = world(4, servers=2)
    answers = script(DONE, ("fatal", "/data cannot be written, the disk is full: free some space"))
    pool.record = lambda name, row: answers()
    with pytest.raises(StorageError, match=r"^/data cannot be written, the disk is full"):
        pool.run()
    assert pool.ray.count("made") == pool.ray.count("killed") == 2
    assert not pool.ledger.reasons("failed")
    assert "is replaced" not in caplog.text


def test_a_server_for_which_there_is_no_cpu_says_so_and_the_others_record(world, caplog):
    pool = world(5, servers=3, cpus=2)
    pool.record = script(HANGS, DONE)
    assert pool.run(timeout=RecordingTimeout(100.0)).recorded == 5
    assert "server2 waits to be placed: it needs 1 CPU, and Ray's nodes have 2 CPU (2 free)." in caplog.text


def test_servers_that_ray_never_places_end_the_run_and_say_what_they_lack(world, caplog):
    pool = world(5, servers=3, cpus=0)
    with pytest.raises(RecordingError, match=r"no server can be started: Ray did not place server0 within 6.. s: "):
        pool.run()
    assert pool.clock.now < MAX_PLACEMENT_S + 30
    assert "it needs 1 CPU, and Ray's nodes have 0 CPU (0 free), and no node alone holds it." in caplog.text


def test_progress_counts_what_is_made_and_ends_full(world):
    pool = world(3)
    pool.record = lambda name, row: ("done", "too dark") if row.recording_id == "r1" else DONE
    pool.run()
    assert pool.told[-1][:2] == (2, 2)
    assert [made for made, _, _ in pool.told] == sorted(made for made, _, _ in pool.told)


# -- spares -------------------------------------------------------------------------------------------------------


def spare(number: int, town: str = "A", kind: str = "crossing") -> SimpleNamespace:
    return row(100 + number, town, kind)


SPARES = [spare(0, kind="merging"), spare(1), spare(2, "B"), spare(3), spare(4)]


def test_nothing_lost_no_spare_recorded(world):
    pool = world(3, spares=SPARES)
    assert pool.run().recorded == 3
    assert pool.ledger.made == {"r0", "r1", "r2"}


def test_a_rejected_recording_is_made_up_from_its_town_and_type_in_the_plans_order(world, caplog):
    pool = world(3, spares=SPARES)
    bad = {"r1", "r101"}
    pool.record = lambda name, row: ("done", "too dark") if row.recording_id in bad else DONE
    done = pool.run()
    assert pool.ledger.made == {"r0", "r2", "r103"}  # r101, which came first, was rejected too
    assert (done.recorded, done.spares, set(done.rejected)) == (3, 1, bad)
    assert "1 spare recordings stand in for those that are left out." in done.sentences()


def test_a_town_without_a_further_site_says_so(world):
    pool = world([row(0), row(1), row(2, "B")], spares=[spare(1)])
    pool.record = lambda name, row: ("done", "too dark") if row.town == "A" and row.recording_id != "r101" else DONE
    done = pool.run()
    assert done.without_spare == {("A", "crossing"): 1}
    assert "A has no spare site left for 1 lost recordings of type crossing." in done.sentences()


def test_what_fails_in_three_runs_is_quarantined_and_made_up(world):
    poison = lambda name, row: ("fault", "no spawn point") if row.recording_id == "r1" else DONE  # noqa: E731
    rows = [row(number) for number in range(3)]
    made: set[str] = set()
    for run in range(1, FAILED_RUNS + 3):
        pool = world(rows, spares=SPARES, made=made)
        pool.record = poison
        done = pool.run()
        made = pool.ledger.made
        if run < FAILED_RUNS:
            assert list(done.faults) == ["r1"]
            assert not done.quarantined
            assert made == {"r0", "r2"}
        else:
            assert list(done.quarantined) == ["r1"]
            assert not done.faults
            assert made == {"r0", "r2", "r101"}
        assert pool.ray.count("work") == [5, 3, 4, 0, 0][run - 1]
    assert "retry_quarantined=true tries it again" in "\n".join(done.sentences())
    pool = world(rows, spares=SPARES)
    pool.ledger.release_quarantined()
    pool.ledger.made = made
    pool.queue = RecordingQueue(pool.folder, rows, SPARES, pool.ledger, LOG)
    done = pool.run()
    assert (done.recorded, done.quarantined, done.spares) == (1, {}, 0)


# -- the actor, and what comes before and after -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (GateError("too dark"), "done"),
        (RecordingError("a car could not be moved"), "fault"),
        (ServerFault("no image"), "actor"),
        (RuntimeError("time-out of 5000ms while waiting for the simulator"), "actor"),
        (RuntimeError("map not found"), "fault"),
        (StorageError("the disk is full"), "fatal"),
        (OSError(28, "No space left on device"), "fatal"),
        (OSError(30, "Read-only file system"), "fatal"),
        (FileNotFoundError(2, "gone"), "fault"),
    ],
)
def test_errors_of_recording_are_told_apart(tmp_path, monkeypatch, error, kind):
    actor = RecorderActor(SimulatorSpec(), str(tmp_path), "server0")
    actor.server.client = SimpleNamespace(set_timeout=lambda seconds: None, get_server_version=lambda: "0.9.16")

    def fail(recording):
        raise error

    monkeypatch.setattr(actor, "recorder_for", fail)
    found, reason, *usage = actor.work(row(0))
    assert bool(usage) == (kind == "done")
    assert found == kind
    assert reason
    assert "\n" not in reason


def test_an_error_of_a_server_that_no_longer_answers_is_the_servers(tmp_path, monkeypatch):
    actor = RecorderActor(SimulatorSpec(), str(tmp_path), "server0")

    def gone(*given):
        raise RuntimeError("connection reset")

    actor.server.client = SimpleNamespace(set_timeout=gone)
    monkeypatch.setattr(actor, "recorder_for", gone)
    assert actor.work(row(0))[0] == "actor"


@pytest.mark.parametrize(
    ("error", "cause", "kind"),
    [
        (NotReady("silent exit"), None, "unready"),
        (CarlaServerError("wrong version"), None, "unusable"),
        (CarlaServerError("the log cannot be written"), OSError(28, "No space left on device"), "fatal"),
        (OSError(28, "No space left on device"), None, "fatal"),
        (OSError(12, "Cannot allocate memory"), None, "unready"),
        (RuntimeError("no free block of ports"), None, "unready"),
    ],
)
def test_errors_of_starting_are_told_apart(tmp_path, monkeypatch, error, cause, kind):
    actor = RecorderActor(SimulatorSpec(), str(tmp_path), "server0")

    def fail(launches):
        assert launches == 1  # the pool backs off between them
        raise error from cause

    monkeypatch.setattr(actor.server, "start", fail)
    assert actor.start()[0] == kind


def test_sentences():
    assert RecordingSummary(0, 36, {}, {}).sentences() == ["36 of 36 were recorded before; nothing to record."]
    told = RecordingSummary(30, 4, {"a": "too dark"}, {"b": "no image"}).sentences()
    assert told[0] == "Recorded 30; 4 of 36 were recorded before."
    assert told[1:] == ["Left out a, which a quality gate rejected: too dark", "Could not record b: no image"]


def test_a_full_disk_is_told_before_anything_starts(tmp_path, monkeypatch):
    planned = [SimpleNamespace(**vars(row(0)), frames=17, view_width=96, view_height=64)]
    monkeypatch.setattr(pool_module, "read_plan", lambda path: planned)
    monkeypatch.setattr(pool_module, "ray_cluster", None)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1000, 900, 100))
    with pytest.raises(
        StorageError, match=r"has 0\.0 GB free and .* GB are needed: free some space or set SHAREVERSE_"
    ):
        record_plan(tmp_path, SimulatorSpec())
    assert not list((tmp_path / "recordings").iterdir())
