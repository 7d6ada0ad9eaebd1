"""Who records what, and what becomes of failures; without servers."""

from __future__ import annotations

import shutil
from collections import deque, namedtuple
from types import SimpleNamespace

import pytest

from infra.carla_servers import CarlaServerError, SimulatorSpec
from infra.storage import StorageError
from tasks.recording.errors import GateError, RecordingError
from tasks.recording.ledger import Ledger
from tasks.recording.pool import ATTEMPTS, RECYCLE_EVERY, Pool, RecorderActor, RecordingSummary, record_plan, take


def row(number: int, town: str) -> SimpleNamespace:
    return SimpleNamespace(recording_id=f"r{number}", town=town, trajectory_type="crossing", weather="clear_noon")


def test_a_server_stays_in_its_town_and_then_takes_the_busiest():
    todo = deque([row(0, "A"), row(1, "B"), row(2, "C"), row(3, "B"), row(4, "C"), row(5, "C")])
    assert take(todo, "B").recording_id == "r1"
    assert take(todo, "B").recording_id == "r3"
    assert take(todo, "B").recording_id == "r2"
    assert [left.recording_id for left in todo] == ["r0", "r4", "r5"]
    assert take(todo, None).town == "C"


@pytest.fixture
def driver(tmp_path):
    """The part of a pool that keeps the books."""
    ledger = Ledger(tmp_path)
    yield SimpleNamespace(attempts={}, todo=deque(), ledger=ledger, faults={})
    ledger.close()


def test_a_fault_is_tried_again_first_of_all_and_given_up_after_three(driver):
    driver.todo.append(row(1, "B"))
    for attempt in range(1, ATTEMPTS):
        Pool.put_back(driver, row(0, "A"), "fault", "the server died")
        assert driver.todo[0].recording_id == "r0"
        assert driver.attempts == {"r0": attempt}
        driver.todo.popleft()
    assert not driver.ledger.reasons("failed")
    Pool.put_back(driver, row(0, "A"), "fault", "the server died")
    assert [left.recording_id for left in driver.todo] == ["r1"]
    assert driver.faults == {"r0": "A, crossing, clear_noon: the server died"} == driver.ledger.reasons("failed")


def test_a_rejection_is_final_at_once(driver):
    Pool.put_back(driver, row(0, "A"), "gate", "a view is black: luminance 2, limit 6.")
    assert not driver.todo
    assert not driver.faults
    assert "a view is black" in driver.ledger.reasons("rejected")["r0"]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (GateError("too dark"), "gate"),
        (RecordingError("no image"), "fault"),
        (RuntimeError("time-out of 5000ms while waiting for the simulator"), "fault"),
        (StorageError("disk full"), "fatal"),
        (CarlaServerError("did not start"), "fatal"),
    ],
)
def test_errors_are_told_apart(tmp_path, monkeypatch, error, kind):
    actor = RecorderActor(SimulatorSpec(), str(tmp_path), "server0")

    def fail(recording):
        raise error

    monkeypatch.setattr(actor, "recorder_for", fail)
    assert actor.record(row(0, "A")) == (kind, str(error))


class FakeRay:
    """Actors that answer from a script, in this process."""

    class exceptions:
        class RayActorError(Exception):
            pass

    def __init__(self, script: list) -> None:
        self.script, self.made, self.killed = script, 0, 0

    def remote(self, kind):
        def make(*arguments):
            self.made += 1
            return SimpleNamespace(record=SimpleNamespace(remote=lambda recording: self.script.pop(0)))

        return SimpleNamespace(remote=make)

    def wait(self, references, num_returns):
        return references[:1], references[1:]

    def get(self, reference):
        if isinstance(reference, Exception):
            raise reference
        return reference

    def kill(self, actor):
        self.killed += 1


def run_pool(tmp_path, script: list, rows: int = 2, kind: str = "embedded") -> tuple[Pool, FakeRay, int]:
    ray, ledger = FakeRay(script), Ledger(tmp_path)
    ledger.done = lambda recording_id: None
    pool = Pool(ray, SimulatorSpec(kind), tmp_path, 1, ledger, deque(row(number, "A") for number in range(rows)))
    recorded = pool.run(0, rows, lambda *told: None)
    return pool, ray, recorded


def test_a_fault_or_a_death_replaces_the_actor(tmp_path):
    died = FakeRay.exceptions.RayActorError()
    pool, ray, recorded = run_pool(tmp_path, [died, ("fault", "no image"), ("done", ""), ("done", "")])
    assert (recorded, ray.made, pool.faults) == (2, 3, {})
    assert ray.killed == 3  # two replaced, one at the end


def test_a_rejection_keeps_the_actor(tmp_path):
    pool, ray, recorded = run_pool(tmp_path, [("gate", "too dark"), ("done", "")])
    assert (recorded, ray.made, pool.faults) == (1, 1, {})
    pool.ledger.close()


@pytest.mark.parametrize(("kind", "servers"), [("carla", 3), ("embedded", 1)])
def test_a_carla_server_is_replaced_before_it_has_leaked_much(tmp_path, kind, servers):
    rows = 2 * RECYCLE_EVERY + 1
    _, ray, recorded = run_pool(tmp_path, [("done", "") for _ in range(rows)], rows, kind)
    assert (recorded, ray.made) == (rows, servers)


def test_what_cannot_be_cured_ends_the_run(tmp_path):
    with pytest.raises(RecordingError, match="did not start in 3 launches"):
        run_pool(tmp_path, [("fatal", "server0 did not start in 3 launches")])


def test_sentences():
    assert RecordingSummary(0, 36, {}, {}).sentences() == ["36 of 36 were recorded before; nothing to record."]
    told = RecordingSummary(30, 4, {"a": "too dark"}, {"b": "no image"}).sentences()
    assert told[0] == "Recorded 30; 4 of 36 were recorded before."
    assert told[1:] == ["Left out a, which a quality gate rejected: too dark", "Could not record b: no image"]


def test_a_full_disk_is_told_before_anything_starts(tiny, tmp_path, monkeypatch):
    for name in ("plan.parquet", "plan.json"):
        shutil.copy(tiny.folder / name, tmp_path)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1000, 900, 100))
    with pytest.raises(
        StorageError, match=r"has 0\.0 GB free and .* GB are needed: free some space or set SHAREVERSE_"
    ):
        record_plan(tmp_path, SimulatorSpec())
    assert not list((tmp_path / "recordings").iterdir())
