"""Daemons that end together; the whole of Ray is in tests/tasks/recording/test_ends.py."""

from __future__ import annotations

import subprocess
from types import SimpleNamespace

from infra.ray_daemons import daemons_of, ended_together


def test_one_that_is_killed_takes_the_others_along_and_none_stays_a_zombie():
    daemons = [subprocess.Popen(["sleep", "1000"]) for _ in range(2)]
    with ended_together(daemons):
        daemons[0].kill()
        daemons[1].wait(10)
    assert [daemon.returncode for daemon in daemons] == [-9, -9]


def test_the_end_of_the_block_ends_none():
    daemons = [subprocess.Popen(["sleep", "1000"]) for _ in range(2)]
    with ended_together(daemons):
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
    with ended_together([]):
        pass
