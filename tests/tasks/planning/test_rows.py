"""Reading a plan: what cannot be recorded is one sentence that names the row."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from infra.storage import sha256_file
from tasks.planning.errors import PlanningError
from tasks.planning.plan import make_plan
from tasks.planning.preset import PlanPreset
from tasks.planning.record import read_plan_record
from tasks.planning.rows import PLAN_SCHEMA, plan_row, read_plan


@pytest.fixture
def path(tmp_path) -> Path:
    """A plan of two made-up rows."""
    preset = PlanPreset.load("tiny")
    shared = {"town": "Mini01", "opendrive_sha256": "0" * 64, "trajectory_type": "crossing", "weather": "clear_noon",
              "split": "train"}  # fmt: skip
    poses = np.zeros((preset.ticks, 2, 6), np.float32)
    rows = [plan_row(preset, shared, {"number": k}, {"seconds": 0.1}, poses, "base", ["key", k]) for k in range(2)]
    pq.write_table(pa.Table.from_pylist(rows, PLAN_SCHEMA), tmp_path / "plan.parquet")
    return tmp_path / "plan.parquet"


def changed(path: Path, place: int = 1, **values) -> None:
    rows = pq.read_table(path).to_pylist()
    rows[place] |= values
    pq.write_table(pa.Table.from_pylist(rows, PLAN_SCHEMA), path)


def test_a_plan_comes_back(path):
    first, second = read_plan(path)
    assert first.site == {"number": 0}
    assert second.jitter == {"seconds": 0.1}
    assert second.poses.shape == (second.ticks, 2, 6)


def test_a_plan_that_is_older_than_hidden_facts_is_read(path):
    pq.write_table(pq.read_table(path).drop_columns(["fact"]), path)
    assert read_plan(path)[0].fact == {}


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"recording_id": "../../x"}, "has recording_id '../../x', which cannot be the name of a file"),
        ({"recording_id": ""}, "has recording_id ''"),
        ({"town": None}, "has no town"),
        ({"town": "a\nb"}, r"has town 'a\\nb'"),
        ({"split": "all"}, "has split 'all'"),
        ({"ticks": -1}, "has ticks -1"),
        ({"frames": 0}, "has frames 0"),
        ({"stride": 1000}, "has windows that need"),
        ({"windows": [-1]}, r"has windows \[-1\]"),
        ({"windows": []}, r"has windows \[\]"),
        ({"windows": [0, None]}, r"has windows \[0, None\]"),
        ({"view_width": 190}, "cannot be halved to even sides"),
        ({"fixed_delta_s": float("nan")}, "has fixed_delta_s nan"),
        ({"fixed_delta_s": -0.1}, "has fixed_delta_s -0.1"),
        ({"site": "{"}, "site in .* holds no readable JSON"),
        ({"gates": "[]"}, "gates in .* holds a JSON list where a dict belongs"),
        ({"extra_actors": '[NaN]'}, "NaN is not a number of JSON"),
        ({"poses": [0.0] * 7}, "has poses that are not"),
        ({"poses": None}, "has no poses"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_recorded_is_named(path, values, words):
    changed(path, **values)
    with pytest.raises(PlanningError, match=words) as caught:
        read_plan(path)
    assert "\n" not in str(caught.value)
    assert "row 1" in str(caught.value)


def test_poses_that_are_no_numbers_are_refused(path):
    poses = pq.read_table(path).to_pylist()[1]["poses"]
    changed(path, poses=[float("inf"), *poses[1:]])
    with pytest.raises(PlanningError, match="has poses that are not"):
        read_plan(path)


def test_a_damaged_table_is_one_sentence(path):
    table = pq.read_table(path)
    pq.write_table(table.set_column(table.schema.get_field_index("ticks"), "ticks", pa.array(["a", "b"])), path)
    with pytest.raises(PlanningError, match="has ticks of type string where int32 belongs"):
        read_plan(path)
    pq.write_table(table.drop_columns(["gates"]), path)
    with pytest.raises(PlanningError, match="lacks the column 'gates'"):
        read_plan(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(PlanningError, match="holds no readable parquet"):
        read_plan(path)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"preset": []}', '{"preset": {"nonsense": 1}}', '{"preset": {}, "lacking": 3}']
)
def test_a_damaged_record_of_the_plan_is_one_sentence(tmp_path, text):
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(PlanningError) as caught:
        make_plan(tmp_path, PlanPreset.load("tiny"), pytest.fail)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["plan.parquet", "spares.parquet"])
def test_a_table_that_was_changed_is_not_recorded(tmp_path, name):
    preset = PlanPreset.load("tiny")
    for table in ("plan.parquet", "spares.parquet"):
        (tmp_path / table).write_bytes(b"as it was planned")
    hashes = {table: sha256_file(tmp_path / table) for table in ("plan.parquet", "spares.parquet")}
    (tmp_path / "plan.json").write_text(json.dumps({"preset": preset.to_dict(), "files_sha256": hashes}))
    assert not make_plan(tmp_path, preset, pytest.fail)
    (tmp_path / name).write_bytes(b"as it was changed")
    with pytest.raises(PlanningError, match=f"{name} is not the table that was planned: move the folder away"):
        make_plan(tmp_path, preset, pytest.fail)
    (tmp_path / name).unlink()
    with pytest.raises(PlanningError, match=f"{name} cannot be read"):
        make_plan(tmp_path, preset, pytest.fail)


def test_a_converted_data_set_is_not_planned_over(tmp_path):
    (tmp_path / "converted.json").write_text("{}")
    with pytest.raises(PlanningError, match="holds converted clips: give the new data set another name"):
        make_plan(tmp_path, PlanPreset.load("tiny"), pytest.fail)


def test_what_a_plan_lacks_may_be_missing_from_its_record(tmp_path):
    (tmp_path / "plan.json").write_text('{"preset": {"name": "old"}}')
    assert read_plan_record(tmp_path / "plan.json")["lacking"] == {}
