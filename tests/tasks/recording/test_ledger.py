"""The ledger: what is done stays done, what a crash hid is found again, what is damaged is made again."""

from __future__ import annotations

import json

import pytest

from tasks.recording.errors import RecordingError
from tasks.recording.ledger import Ledger


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path)
    yield ledger
    ledger.close()


def finish(ledger: Ledger, recording_id: str, text: str = "x") -> None:
    """Let a recording's folder appear, as the recorder does with its last rename."""
    artefact = ledger.artefact(recording_id)
    artefact.parent.mkdir(parents=True, exist_ok=True)
    artefact.write_text(json.dumps({"recording_id": recording_id, "text": text}))


def test_done_means_that_the_artefact_is_there(ledger):
    assert not ledger.is_done("a")
    finish(ledger, "a")
    ledger.done("a")
    assert ledger.is_done("a")
    ledger.artefact("a").unlink()
    assert not ledger.is_done("a")


def test_a_crash_between_rename_and_entry_loses_nothing(ledger):
    finish(ledger, "a")  # and the driver died before ledger.done
    assert ledger.is_done("a")
    rows = ledger.base.execute("SELECT recording_id, state FROM recordings").fetchall()
    assert rows == [("a", "done")]


def test_a_lost_ledger_is_made_from_the_artefacts(ledger, tmp_path):
    finish(ledger, "a")
    ledger.done("a")
    ledger.close()
    for file in tmp_path.glob("ledger.*"):
        file.unlink()
    again = Ledger(tmp_path)
    assert again.is_done("a")
    again.close()


def test_one_writer_at_a_time(ledger, tmp_path):
    with pytest.raises(RecordingError, match=r"another run is recording into .*: wait until it ends"):
        Ledger(tmp_path)
    ledger.close()
    Ledger(tmp_path).close()


def test_a_changed_artefact_is_not_done(ledger):
    finish(ledger, "a")
    ledger.done("a")
    finish(ledger, "a", text="changed")
    assert not ledger.is_done("a")


def test_a_failure_is_open_until_it_succeeds(ledger):
    ledger.failed("a", "the server died")
    assert not ledger.is_done("a")
    assert ledger.reasons("failed") == {"a": "the server died"}
    finish(ledger, "a")
    assert ledger.is_done("a")
    assert ledger.reasons("failed", "rejected") == {}


def test_reasons_are_by_state_and_attempts_count(ledger):
    ledger.rejected("a", "a view is black")
    ledger.failed("b", "no image")
    ledger.failed("b", "no image again")
    assert ledger.reasons("rejected") == {"a": "a view is black"}
    assert ledger.reasons("rejected", "failed") == {"a": "a view is black", "b": "no image again"}
    assert ledger.base.execute("SELECT attempts FROM recordings WHERE recording_id = 'b'").fetchone() == (2,)
