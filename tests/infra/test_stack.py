"""Which processes count as our services, and that two clones do not collide."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import psutil
import pytest

from infra import stack


@pytest.fixture
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("SHAREVERSE_HOME", str(tmp_path))
    stack.services_dir().mkdir(parents=True)


def sleeper(name="mlflow"):
    """A process in a session of its own, recorded as a service."""
    command = [sys.executable, "-c", "import sys; print('up', flush=True); sys.stdin.read()"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    process.stdout.readline()
    service = stack.Service(name, process.pid, psutil.Process(process.pid).create_time(), "http://127.0.0.1:1")
    stack.write_service(service)
    return process, service


def test_a_pid_that_somebody_else_has_now_is_not_our_service(state):
    ours = stack.Service("mlflow", os.getpid(), psutil.Process().create_time(), "")
    assert ours.process() is not None
    assert stack.Service("mlflow", os.getpid(), ours.started - 60, "").process() is None


def test_down_ends_exactly_the_recorded_process(state):
    process, _ = sleeper()
    bystander = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    stack.down()
    assert not psutil.pid_exists(process.pid)
    assert bystander.poll() is None
    bystander.stdin.close()
    bystander.wait(10)
    assert "mlflow stopped http://127.0.0.1:1" in stack.status_lines()[1]


def test_status_prints_a_line_a_service(state):
    process, service = sleeper("prefect")
    assert stack.status_lines()[0] == f"prefect running http://127.0.0.1:1 {process.pid}"
    assert stack.status_lines()[2] == "worker stopped - -"
    stack.stop(service)


def test_a_taken_port_is_passed_over():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        assert stack.free_port(taken) != taken
