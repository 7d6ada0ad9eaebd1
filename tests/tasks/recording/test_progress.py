"""The view of a recording that goes on: counts by town and type, rate, time left, servers, losses."""

from __future__ import annotations

import json
from dataclasses import asdict

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.actor_pool import ActorState, Usage
from infra.storage import StorageError
from tasks.recording.errors import RecordingError
from tasks.recording.ledger import Event, Ledger, read_ledger
from tasks.recording.progress import RunState, duration, progress
from tasks.recording.watch import STATE_FILE, read_progress


def row(key: str, town: str = "A", kind: str = "crossing", windows: int = 2) -> dict:
    return {
        "recording_id": key, "scene_id": f"s-{key}", "variant": "base", "town": town, "split": "train",
        "trajectory_type": kind, "windows": list(range(windows)),
    }  # fmt: skip


PLAN = [row("a0"), row("a1"), row("a2"), row("b0", "B"), row("m0", "B", "merging", 3)]
SPARES = [row("a7"), row("a8")]
SERVERS = (
    ActorState("server10", "far", "starting", 30.0, "", 0, 0, Usage(), ""),
    ActorState("server2", "far", "working", 7200.0, "b0", 9, 2, Usage(3 * 10**9, 5 * 10**9), "server2 died."),
    ActorState("server0", "near", "working", 3.0, "a2", 4, 0, Usage(10**9), ""),
)
RUN = RunState(1000.0, 4600.0, False, 1, 2, 7200.0, SERVERS)
EVENTS = [
    Event(1100.0, "server2", "far", "died", "server2 died."),
    Event(1200.0, "server2", "far", "recycled by age", "server2 is replaced: it is 180 minutes old."),
    Event(1300.0, "server2", "far", "died", "server2 died."),
]
STATES = {"a0": "done", "a1": "rejected", "a7": "done", "b0": "failed", "m0": "done"}


def test_counts_by_town_and_type_with_spares_for_what_is_lost():
    view = progress(PLAN, SPARES, STATES, RUN, EVENTS)
    found = {key: (cell.wanted, cell.done, cell.pairs_wanted, cell.pairs) for key, cell in view.cells.items()}
    assert found == {
        ("A", "crossing"): (3, 2, 6, 4),  # a7 stands in for a1
        ("B", "crossing"): (1, 0, 2, 0),
        ("B", "merging"): (1, 1, 3, 3),
    }
    assert (view.wanted, view.done, view.pairs) == (5, 3, 7)


def test_a_spare_that_is_lost_too_is_counted_and_the_next_stands_in():
    view = progress(PLAN, SPARES, STATES | {"a7": "quarantined"}, RUN, EVENTS)
    cell = view.cells["A", "crossing"]
    assert (cell.wanted, cell.done, dict(cell.lost)) == (3, 1, {"rejected": 1, "quarantined": 1})


def test_rate_and_time_left_count_this_run():
    view = progress(PLAN, SPARES, STATES, RUN, EVENTS)
    assert (view.recorded, view.per_hour, view.left_s) == (2, 2.0, 3600.0)
    assert view.pairs_per_server_hour == 2.5  # five clip pairs in two server-hours


def test_losses_by_kind_and_sentences():
    view = progress(PLAN, SPARES, STATES, RUN, EVENTS)
    assert view.losses == {
        "servers": {"died": 2, "recycled by age": 1}, "recordings": {"failed": 1, "rejected": 1},
    }  # fmt: skip
    assert view.sentences(now=4601.0) == [
        "3 of 5 recordings are done (60.0 %), 7 clip pairs.",
        "This run: 2 recordings in 1 h 00 min, 2.0 an hour, 2.5 clip pairs per server-hour; 1 h 00 min left at this "
        "rate.",
        "Servers: 2 died, 1 recycled by age.",
        "Recordings: 1 failed, 1 rejected.",
    ]
    assert view.sentences(now=5000.0)[-1].startswith("The run has told nothing for 6 min")


def test_servers_by_node_with_state_restarts_and_why():
    rows = progress(PLAN, SPARES, STATES, RUN, EVENTS).servers_table()
    assert [(line["node"], line["server"]) for line in rows] == [
        ("far", "server2"), ("far", "server10"), ("near", "server0"),
    ]  # fmt: skip
    assert rows[0] == {
        "node": "far", "server": "server2", "state": "working", "for": "2 h 00 min", "recording": "b0", "done": 9,
        "restarts": 2, "memory": "3.0 GB", "video memory": "5.0 GB", "last restart": "server2 died.",
    }  # fmt: skip


def test_before_the_first_run_and_before_the_first_recording_nothing_is_made_up():
    view = progress(PLAN, SPARES, {}, None, [])
    assert (view.per_hour, view.left_s, view.pairs_per_server_hour, view.losses) == (
        None,
        None,
        None,
        {"servers": {}, "recordings": {}},
    )
    assert view.sentences()[-1] == "No run has told its state yet."
    began = progress(PLAN, SPARES, {"a0": "done"}, RUN, [])
    assert (began.per_hour, began.left_s, began.pairs_per_server_hour) == (None, None, None)
    assert began.sentences()[1] == "This run: nothing recorded in 1 h 00 min."


@pytest.mark.parametrize(
    ("seconds", "text"), [(7.4, "7 s"), (119, "119 s"), (120, "2 min"), (3900, "1 h 05 min"), (180000, "2 d 2 h")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.fixture
def folder(tmp_path):
    """A planned data set with a ledger."""
    pq.write_table(pa.Table.from_pylist(PLAN), tmp_path / "plan.parquet")
    pq.write_table(pa.Table.from_pylist(SPARES), tmp_path / "spares.parquet")
    ledger = Ledger(tmp_path)
    ledger.mark_rejected("a1", "too dark")
    for _ in range(3):
        ledger.mark_failed("b0", "no image")
    ledger.note("server0", "near", "died", "server0 died.")
    yield tmp_path, ledger
    ledger.close()


def test_the_view_is_read_from_files_while_a_run_writes_them_and_after(folder):
    path, ledger = folder
    (path / STATE_FILE).write_text(json.dumps(asdict(RUN)))
    for _ in range(2):
        view = read_progress(path)
        assert view.run == RUN
        assert [event.reason for event in view.events] == ["server0 died."]
        assert view.losses == {"servers": {"died": 1}, "recordings": {"quarantined": 1, "rejected": 1}}
        ledger.close()
    assert not list(path.glob("ledger.sqlite-*"))  # looking leaves nothing


def test_without_a_state_the_ledger_alone_speaks(folder):
    path, _ = folder
    assert read_progress(path).losses == {"servers": {}, "recordings": {"quarantined": 1, "rejected": 1}}


@pytest.mark.parametrize(
    ("name", "content", "error", "sentence"),
    [
        (STATE_FILE, "{}", StorageError, "is no state of a run: remove it"),
        (STATE_FILE, "[", StorageError, "remove it; the next run writes it"),
        ("ledger.sqlite", "nothing", RecordingError, "file is not a database"),
        ("plan.parquet", "nothing", RecordingError, "holds no readable parquet"),
        ("plan.parquet", None, RecordingError, "has no plan: name a data set that was planned"),
        ("ledger.sqlite", None, RecordingError, "has no ledger: nothing was recorded there yet"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(folder, name, content, error, sentence):
    path, ledger = folder
    ledger.close()
    if content is None:
        (path / name).unlink()
    else:
        (path / name).write_text(content)
    with pytest.raises(error, match=sentence):
        read_progress(path)


def test_a_ledger_from_before_events_is_read(folder):
    path, ledger = folder
    ledger.query("DROP TABLE events")
    assert read_ledger(path)[1] == []
