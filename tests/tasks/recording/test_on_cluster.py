"""Recorders on several nodes of a Ray cluster, of which one is lost: the same shards, byte for byte."""

from __future__ import annotations

import shutil

import pytest

from infra.storage import sha256_file
from tasks.sharding.shards import write_shards
from tests.ray_nodes import run_on_cluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_recorders_are_placed_by_what_nodes_declare_and_a_lost_node_changes_no_byte(tiny, tmp_path):
    folder = tmp_path / "tiny"
    folder.mkdir()
    for name in ("plan.parquet", "plan.json", "maps"):
        source = tiny.folder / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
    done = run_on_cluster("tests.tasks.recording.on_cluster", str(folder), home=tmp_path / "home")
    assert "recorded=2" in done.stdout
    assert "goes to another server: server" in done.stderr
    assert write_shards(folder).digest == tiny.sharding.digest
    made = {path.name: sha256_file(path) for path in folder.glob("shards/*/*.tar")}
    assert made == {path.name: sha256_file(path) for path in tiny.folder.glob("shards/*/*.tar")}
    launches = (folder / "launches").read_text().splitlines()
    assert all("-graphicsadapter=3" in launch for launch in launches), launches  # as the map says for GPU 0
