"""Ranks end with one another and leave nothing, whatever they started; with stand-ins for the ranks."""

from __future__ import annotations

import os
import signal
import time
from types import SimpleNamespace

import pytest

from tasks.runs.errors import RunError
from tasks.training import group as group_module
from tasks.training.group import ProcessGroup
from tests.processes import family, until

RANK = """#!/bin/sh
echo rank $RANK of $WORLD_SIZE
(setsid sleep 1000 &)
sleep 1001
exit 5
"""


@pytest.fixture
def group(tmp_path, monkeypatch):
    """Two ranks that run, and their family."""
    rank = tmp_path / "rank.sh"
    rank.write_text(RANK)
    rank.chmod(0o755)
    monkeypatch.setattr(group_module, "sys", SimpleNamespace(executable=str(rank)))
    with family() as ours:
        monkeypatch.setenv("SHAREVERSE_TEST_MARK", ours.mark)
        run = SimpleNamespace(folder=tmp_path / "run", run_id="run")
        with ProcessGroup(run, tmp_path / "latents", 2) as started:
            until(lambda: len(ours.alive("sleep 1000")) == 2 == len(ours.alive("sleep 1001")))
            yield started, ours
        assert not ours.left(2.0)


def test_the_end_of_the_block_ends_all_that_ranks_have_started(group):
    started, _ = group
    assert started.wait(0.05)
    assert [process.poll() for process in started.processes] == [None, None]
    assert (started.logs / "rank1.log").read_text() == "rank 1 of 2\n"


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_is_named_soon(group, rank):
    started, _ = group
    before = time.monotonic()
    os.kill(started.processes[rank].pid, signal.SIGKILL)
    with pytest.raises(RunError, match=rf"process {rank} of 2 was ended by SIGKILL; its last words: rank {rank}"):
        while started.wait(0.5):
            pass
    assert time.monotonic() - before < 5.0


def test_the_exit_code_of_a_rank_is_known(group):
    started, ours = group
    for sleeping in ours.alive("sleep 1001"):
        if sleeping.name() == "sleep":
            sleeping.kill()
    with pytest.raises(RunError, match=r"process \d of 2 ended with 5"):
        while started.wait(0.5):
            pass
