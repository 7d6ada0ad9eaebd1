"""One real recording for all tests of the data engine: the preset `tiny`, on an embedded server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from infra.carla_servers import CarlaServer, SimulatorSpec
from tasks.planning.plan import make_plan
from tasks.planning.preset import PlanPreset
from tasks.recording.pool import RecordingSummary, record_plan
from tasks.sharding.shards import ShardSummary, write_shards

SPEC = SimulatorSpec()


@dataclass(frozen=True)
class Recorded:
    """A data set made by the data engine; tests must not change it."""

    folder: Path
    recording: RecordingSummary
    sharding: ShardSummary


def planned(folder: Path, **changes) -> Path:
    """Plan the preset `tiny` in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    preset = PlanPreset.load("tiny").replace(**changes)
    make_plan(folder, preset, lambda: CarlaServer(SPEC, folder / "logs", "survey"))
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Recorded:
    """Two recordings in two towns (Mini01 train, Mini02 test), two windows of 17 frames each."""
    folder = planned(tmp_path_factory.mktemp("datasets") / "tiny")
    recording = record_plan(folder, SPEC, servers=1)
    return Recorded(folder, recording, write_shards(folder))


@pytest.fixture(scope="module")
def endpoint():
    """The address of a real S3-compatible server with an empty bucket."""
    from tests.s3 import s3_server  # it takes seconds to import

    with s3_server() as address:
        yield address


@pytest.fixture(scope="module")
def bucket(endpoint):
    """The server's bucket as another program sees it."""
    from tests.s3 import Bucket

    return Bucket(endpoint)
