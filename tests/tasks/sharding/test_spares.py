"""Spare recordings in a data set: only those that stand in for lost ones, in shards of their own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.storage import sha256_file
from tasks.planning.rows import read_plan
from tasks.recording.ledger import Ledger
from tasks.sharding.card import write_card
from tasks.sharding.reader import ClipIndex
from tasks.sharding.shards import write_shards
from tasks.sharding.verify import verify

SPARES = ["spare-a", "spare-b"]


@pytest.fixture
def copy(tiny, tmp_path):
    """A copy without shards, whose plan has two recorded spares of its training town."""
    folder = tmp_path / "tiny"
    shutil.copytree(tiny.folder, folder, ignore=shutil.ignore_patterns("shards", "index.parquet", "dataset.json"))
    table = pq.read_table(folder / "plan.parquet")
    row = next(row for row in table.to_pylist() if row["split"] == "train")
    rows = [row | {"recording_id": name, "scene_id": f"{name}-scene"} for name in SPARES]
    pq.write_table(pa.Table.from_pylist(rows, table.schema), folder / "spares.parquet")
    for made in rows:
        imitate(folder / "recordings" / row["recording_id"], folder / "recordings" / made["recording_id"], made)
    return folder


def imitate(source: Path, target: Path, row: dict) -> None:
    """Make a recording of another id out of one."""
    shutil.copytree(source, target)
    for path in target.glob("*/meta.json"):
        meta = json.loads(path.read_text()) | {name: row[name] for name in ("recording_id", "scene_id")}
        path.write_text(json.dumps(meta, sort_keys=True, indent=1))
    record = json.loads((target / "recording.json").read_text())
    record |= {"recording_id": row["recording_id"]}
    record["files"] = {name: sha256_file(target / name) for name in record["files"]}
    (target / "recording.json").write_text(json.dumps(record))


def enter(folder: Path, *lost: str, quarantined: tuple[str, ...] = ()) -> None:
    """Write into the ledger what a run found."""
    ledger = Ledger(folder)
    for name in lost:
        ledger.mark_rejected(name, "too dark")
    for name in quarantined * 3:
        ledger.mark_failed(name, "no spawn point")
    ledger.close()


def train(folder: Path) -> str:
    return next(row.recording_id for row in read_plan(folder / "plan.parquet") if row.split == "train")


def recordings(folder: Path) -> list[str]:
    return list(dict.fromkeys(row["recording_id"] for row in ClipIndex(folder).rows))


def test_unused_spares_are_neither_there_nor_missing(tiny, copy):
    done = write_shards(copy)
    assert (done.digest, done.missing) == (tiny.sharding.digest, {})
    assert not set(SPARES) & set(recordings(copy))
    assert verify(copy) == 4


@pytest.mark.parametrize("how", ["rejected", "quarantined"])
def test_a_spare_stands_in_and_the_other_shards_stay(tiny, copy, how):
    gone = train(copy)
    shutil.rmtree(copy / "recordings" / gone)
    enter(copy, *([gone] if how == "rejected" else []), quarantined=(gone,) if how == "quarantined" else ())
    done = write_shards(copy, samples_per_shard=1)
    assert list(done.missing) == [gone]
    assert "spare-a" in recordings(copy)
    assert "spare-b" not in recordings(copy)
    assert [path.name for path in sorted(copy.glob("shards/train/*.tar"))] == ["train-000002.tar", "train-000003.tar"]
    assert verify(copy) == 4
    assert write_card(copy)


def test_a_spare_that_is_lost_too_is_passed_over(copy):
    gone = train(copy)
    shutil.rmtree(copy / "recordings" / gone)
    enter(copy, gone, "spare-a")
    write_shards(copy)
    assert "spare-b" in recordings(copy)
    assert "spare-a" not in recordings(copy)


def test_when_the_lost_one_is_made_after_all_the_data_set_is_the_undisturbed_one(tiny, copy):
    gone = train(copy)
    kept = copy.parent / "kept"
    shutil.move(copy / "recordings" / gone, kept)
    enter(copy, quarantined=(gone,))
    assert write_shards(copy).digest != tiny.sharding.digest
    shutil.move(kept, copy / "recordings" / gone)
    ledger = Ledger(copy)
    ledger.mark_done(gone)
    ledger.close()
    assert write_shards(copy).digest == tiny.sharding.digest
    assert [path.name for path in sorted(copy.glob("shards/train/*"))] == ["train-000000.json", "train-000000.tar"]
    assert verify(copy) == 4
