"""Recorders on several nodes of a Ray cluster, of which one is lost: the same shards, byte for byte."""

from __future__ import annotations

import pytest

from tasks.sharding.shards import write_shards
from tests.ray_nodes import run_on_cluster
from tests.tasks.recording.faults import copy_plan, shards

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_recorders_are_placed_by_what_nodes_declare_and_a_lost_node_changes_no_byte(tiny, tmp_path):
    folder = copy_plan(tiny.folder, tmp_path / "tiny")
    done = run_on_cluster("tests.tasks.recording.on_cluster", str(folder), home=tmp_path / "home")
    assert "recorded=2" in done.stdout
    assert "goes to another server: server" in done.stderr
    assert write_shards(folder).digest == tiny.sharding.digest
    assert shards(folder) == shards(tiny.folder)
    launches = (folder / "launches").read_text().splitlines()
    assert all("-graphicsadapter=3" in launch for launch in launches), launches  # as the map says for GPU 0
