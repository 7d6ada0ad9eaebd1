"""Daemons that end together; the whole of Ray is in tests/tasks/recording/test_ends.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from infra.ray_daemons import daemons_of, end_daemons_together
from tests.processes import family, until

ROOT = Path(__file__).resolve().parents[2]
DRIVER = """
import subprocess, sys
from infra.ray_daemons import end_daemons_together

def start():
    command = ["sh", "-c", "sleep 1000 & echo; exec sleep 1001"]
    daemon = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    daemon.stdout.readline()
    return daemon

daemons = [start(), start()]
with end_daemons_together(daemons):
    print(daemons[0].pid, flush=True)
    sys.stdin.read()
"""


def test_one_that_is_killed_takes_the_others_along_and_none_stays_a_zombie():
    daemons = [subprocess.Popen(["sleep", "1000"]) for _ in range(2)]
    with end_daemons_together(daemons):
        daemons[0].kill()
        daemons[1].wait(10)
    assert [daemon.returncode for daemon in daemons] == [-9, -9]


@pytest.mark.parametrize("killed", ["the driver", "a daemon"])
def test_whoever_is_killed_no_daemon_and_no_agent_stays(killed):
    with family() as ours:
        command = [sys.executable, "-c", DRIVER]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT,
                              env=ours.environment) as driver:  # fmt: skip
            daemon = int(driver.stdout.readline())
            assert len(ours.alive()) == 6
            (driver if killed == "the driver" else psutil.Process(daemon)).kill()
            if killed == "a daemon":
                until(lambda: len(ours.alive()) == 1)
                driver.stdin.close()
                assert driver.wait(10) == 0
        assert not ours.left()


def test_the_end_of_a_child_ends_nothing_else():
    """Ray ends workers as it likes."""
    with family() as ours:
        command = [sys.executable, "-c", DRIVER]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT,
                              env=ours.environment) as driver:  # fmt: skip
            (child,) = psutil.Process(int(driver.stdout.readline())).children()
            child.kill()
            until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
            driver.stdin.close()
            assert driver.wait(10) == 0
        assert len(ours.alive("sleep 1001")) == 2


def test_the_end_of_the_block_ends_none():
    daemons = [subprocess.Popen(["sleep", "1000"]) for _ in range(2)]
    with end_daemons_together(daemons):
        pass
    assert [daemon.poll() for daemon in daemons] == [None, None]
    for daemon in daemons:
        daemon.kill()
        daemon.wait(10)


def test_a_cluster_that_was_joined_has_none_of_ours():
    def ray(node):
        return SimpleNamespace(_private=SimpleNamespace(worker=SimpleNamespace(_global_node=node)))

    own = SimpleNamespace(process="its raylet")
    assert daemons_of(ray(None)) == []
    assert daemons_of(ray(SimpleNamespace(all_processes={}))) == []
    assert daemons_of(ray(SimpleNamespace(all_processes={"raylet": [own], "log_monitor": [own]}))) == ["its raylet"]
    with end_daemons_together([]):
        pass
