"""The text of a progress line, and what becomes of reports that Prefect does not take."""

from __future__ import annotations

import logging
import threading
import time
from types import SimpleNamespace
from uuid import uuid4

import pytest

from infra import prefect_progress
from infra.prefect_progress import FlowProgress, describe


def test_rate_and_time_left_count_from_the_first_call():
    assert describe(12, 36, "Mini03", "recordings", started=100, first=6, now=160) == (
        "12/36 recordings, 6.0 a minute, 4:00 left: Mini03"
    )


def test_no_rate_before_anything_is_done():
    assert describe(3, 36, "", "recordings", started=100, first=3, now=160) == "3/36 recordings"


@pytest.fixture
def prefect(monkeypatch, caplog):
    """A Prefect server whose moods the test sets, and what it was told."""
    server = SimpleNamespace(told=[], mood=lambda: None)

    def create(progress, key, description):
        server.mood()
        server.told.append((progress, description))
        return uuid4()

    def update(artifact_id, progress, description):
        create(progress, "", description)

    monkeypatch.setattr(prefect_progress, "create_progress_artifact", create)
    monkeypatch.setattr(prefect_progress, "update_progress_artifact", update)
    monkeypatch.setattr(prefect_progress, "get_run_logger", lambda: logging.getLogger("told"))
    monkeypatch.setattr(prefect_progress, "ARTIFACT_EVERY_S", 0.0)
    monkeypatch.setattr(prefect_progress, "RETRY_S", 0.0)
    caplog.set_level(logging.INFO, "told")
    return server


def idle(progress: FlowProgress) -> None:
    """Wait until nothing is being sent."""
    sender = progress.reports.sender
    if sender is not None:
        sender.join(10)
        assert not sender.is_alive()


@pytest.mark.parametrize("error", [OSError("refused"), RuntimeError("closed loop"), KeyError("id"), TypeError()])
def test_no_failure_of_a_report_reaches_the_work(prefect, caplog, error):
    def fail():
        raise error

    prefect.mood = fail
    progress = FlowProgress("recording", "recordings")
    for done in range(4):
        progress(done, 5, "Mini01")
        idle(progress)
    assert not prefect.told
    assert caplog.text.count("Progress (recording) is not shown in Prefect for now") == 1  # once a spell
    prefect.mood = lambda: None
    progress(4, 5, "Mini01")
    idle(progress)
    progress(5, 5, "")
    assert [percent for percent, _ in prefect.told] == [80.0, 100.0]
    assert caplog.text.count("Progress (recording) is shown in Prefect again") == 1
    prefect.mood = fail
    progress(5, 5, "")
    assert caplog.text.count("Progress (recording) is not shown in Prefect for now") == 2


def test_a_server_that_hangs_holds_nothing_up_and_gets_the_newest_report_only(prefect):
    hanging = threading.Event()
    prefect.mood = lambda: hanging.wait(20)
    progress = FlowProgress("recording", "recordings")
    before = time.monotonic()
    for done in range(50):
        progress(done, 100, "Mini01")
    assert time.monotonic() - before < 5
    hanging.set()
    idle(progress)
    assert len(prefect.told) <= 3
    assert prefect.told[-1][0] == 49.0


def test_the_last_report_is_not_waited_for_without_end(prefect, monkeypatch):
    monkeypatch.setattr(prefect_progress, "LAST_REPORT_S", 0.1)
    hanging = threading.Event()
    prefect.mood = lambda: hanging.wait(20)
    progress = FlowProgress("recording", "recordings")
    before = time.monotonic()
    progress(5, 5, "")
    assert time.monotonic() - before < 5
    hanging.set()
    idle(progress)
