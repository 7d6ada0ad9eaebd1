"""A flow run ends with its worker, by hand it ends with nobody."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from infra import prefect_worker
from infra.prefect_worker import end_with_worker, worker_of
from infra.stack import control
from tests.processes import family

ROOT = Path(__file__).resolve().parents[2]
WORKER = """
import subprocess, sys
flow_run = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stderr=subprocess.PIPE, start_new_session=True)
flow_run.wait()
"""
"""It reads what its flow run logs: from then on the pipe is broken."""
FLOW_RUN = """
import logging, signal
from rich.console import Console
from rich.logging import RichHandler
from infra.prefect_worker import end_with_worker
from infra.process_guard import GuardedProcess
logging.basicConfig(handlers=[RichHandler(console=Console(stderr=True))])
server = GuardedProcess(["sh", "-c", "sleep 1000; true"])
end_with_worker("flow", "flow run", "state")
print("running", flush=True)
while True:
    signal.pause()
"""


def started_by_make_up(monkeypatch) -> list[str]:
    """Return the words by which `make up` starts its worker."""
    commands = []
    monkeypatch.setattr(control, "launch", lambda name, command, *rest: commands.append(command))
    monkeypatch.setattr(control, "wait_for", lambda *rest: None)
    monkeypatch.setattr(control, "environment", dict)
    control.start_worker("http://127.0.0.1:1/api")
    return commands[0][1:]


@pytest.mark.parametrize("whose", ["make up's", "by hand"])
def test_a_flow_run_and_what_it_started_end_with_a_killed_worker(whose, monkeypatch):
    words = ["prefect", "worker", "start"] if whose == "by hand" else started_by_make_up(monkeypatch)
    with family() as ours:
        command = [sys.executable, "-c", WORKER, FLOW_RUN, *words]
        worker = subprocess.Popen(command, stdout=subprocess.PIPE, env=ours.environment, cwd=ROOT)
        assert worker.stdout.readline() == b"running\n"
        assert ours.alive("sleep 1000")
        worker.kill()
        worker.wait(10)
        worker.stdout.close()
        assert not ours.left()


def test_one_that_was_started_by_hand_is_left_alone(monkeypatch):
    assert worker_of(psutil.Process()) is None
    monkeypatch.setattr(prefect_worker, "end_after", lambda descriptor: pytest.fail("nobody to follow"))
    end_with_worker()
