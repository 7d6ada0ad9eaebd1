"""The pool on real raylets, each case in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def run(case: str, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SHAREVERSE_HOME", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    command = [sys.executable, "-m", "tests.infra.actor_pool.on_cluster", case]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr


def test_actors_that_die_and_hang_and_items_that_fail_end_as_they_should(tmp_path, monkeypatch):
    run("faults", tmp_path, monkeypatch)


@pytest.mark.slow
def test_a_node_that_joins_is_used_and_a_lost_one_costs_what_is_in_hand(tmp_path, monkeypatch):
    run("nodes", tmp_path, monkeypatch)
