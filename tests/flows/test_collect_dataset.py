"""The flow collect-dataset, run by Prefect: what it says, what it refuses, what it does not do twice."""

from __future__ import annotations

import json
import logging
import shutil

import pytest

from tasks.planning.errors import PlanningError
from tasks.recording.errors import RecordingError
from tasks.recording.ledger import Ledger
from tasks.recording.pool import RecordingSummary


@pytest.fixture(scope="module")
def prefect():
    """A Prefect server of this test's own, in a folder of its own."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture
def state(prefect, tmp_path, monkeypatch):
    """SHAREVERSE_HOME and MLflow of this test's own."""
    monkeypatch.setenv("SHAREVERSE_HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def collect(**parameters) -> dict:
    from flows.collect_dataset import collect_dataset

    return collect_dataset(**parameters)


@pytest.fixture
def log(monkeypatch):
    """What the tasks tell. Prefect and MLflow both set up logging anew, so the tasks get a logger of our own."""
    told: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record):
            told.append(record.getMessage())

    logger = logging.Logger("told", logging.INFO)
    logger.addHandler(Keep())
    for step in ("planning", "recording", "sharding"):
        monkeypatch.setattr(f"tasks.{step}.task.get_run_logger", lambda: logger)
    return told


def test_what_is_done_is_not_done_again(tiny, state, log):
    shutil.copytree(tiny.folder, state / "datasets" / "tiny")
    before = {path: path.stat().st_mtime_ns for path in state.rglob("*.tar")}
    made = collect(dataset="tiny", plan_preset="tiny")
    assert made["digest"] == tiny.sharding.digest
    assert (made["clips"], made["missing"]) == (4, {})
    assert "2 of 2 were recorded before; nothing to record." in log
    assert any("The plan was there: 2 recordings" in line for line in log)
    assert any(line.startswith("Data card: ") for line in log)
    log.clear()
    again = collect(dataset="tiny", plan_preset="tiny")
    assert again == made
    assert "2 of 2 were recorded before; nothing to record." in log
    assert any("in 2 shards (2 were there)" in line for line in log)
    assert not any(line.startswith("Data card: ") for line in log)
    assert before == {path: path.stat().st_mtime_ns for path in state.rglob("*.tar")}


def test_another_plan_under_recordings_is_refused(tiny, state):
    shutil.copytree(tiny.folder, state / "datasets" / "tiny")
    with pytest.raises(PlanningError, match=r"holds another plan \(its seed differ\): give the new data set another"):
        collect(dataset="tiny", plan_preset="tiny", seed=5)


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"plan_preset": "huge"}, r"there is no plan preset 'huge': take one of base, demo, paper, shared-world-bench"),
        (
            {"plan_preset": "tiny", "towns": ["Atlantis"]},
            r"the simulator has no town 'Atlantis': it has Mini01, Mini02",
        ),
        (
            {"plan_preset": "tiny", "recordings_per_town": 5000},
            r"town Mini01 has \d+ sites of type '.*', too few for 5000",
        ),
    ],
)
def test_plans_that_cannot_be_are_one_sentence(state, parameters, sentence):
    with pytest.raises(PlanningError, match=sentence) as caught:
        collect(dataset="new", **parameters)
    assert "\n" not in str(caught.value)
    assert not (state / "datasets" / "new" / "plan.json").exists()


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"trajectory_types": ["overtaking"]}, "straight_meeting"),
        ({"weathers": ["hail"]}, "clear_noon"),
        ({"dataset": "../elsewhere"}, "dataset"),
        ({"servers": 0}, "servers"),
    ],
)
def test_bad_parameters_are_refused_before_anything_starts(state, parameters, named):
    from prefect.exceptions import ParameterTypeError

    with pytest.raises(ParameterTypeError, match=named):
        collect(**parameters)
    assert not (state / "datasets").exists()


def test_a_town_without_room_for_a_type_is_named(state, tmp_path):
    """A single straight road has no junction."""
    from scenariogeneration import xodr

    maps = tmp_path / "maps"
    maps.mkdir()
    road = xodr.create_road(xodr.Line(400), 0, 1, 1, lane_width=3.5)
    network = xodr.OpenDrive("Lane")
    network.add_road(road)
    network.adjust_roads_and_lanes()
    network.write_xml(str(maps / "Lane.xodr"))
    with pytest.raises(
        PlanningError, match=r"town Lane cannot host the trajectory type 'crossing': leave out the town"
    ):
        collect(dataset="new", plan_preset="tiny", towns=["Lane"], trajectory_types=["crossing"], maps_dir=str(maps))


@pytest.fixture
def without_one(tiny, state):
    """The data set `tiny` in which a recording is gone, planned without spares; and that recording's id."""
    folder = state / "datasets" / "tiny"
    shutil.copytree(tiny.folder, folder)
    (folder / "spares.parquet").unlink()
    record = json.loads((folder / "plan.json").read_text())
    del record["files_sha256"]["spares.parquet"]
    (folder / "plan.json").write_text(json.dumps(record))
    gone = sorted(path.name for path in (folder / "recordings").iterdir())[0]
    shutil.rmtree(folder / "recordings" / gone)
    return folder, gone


def test_rejections_are_told(without_one, log):
    folder, gone = without_one
    ledger = Ledger(folder)
    ledger.mark_rejected(gone, "Mini01, crossing, clear_noon: a view is black: luminance 2, limit 6.")
    ledger.close()
    made = collect(dataset="tiny", plan_preset="tiny")
    assert made["missing"] == {gone: "Mini01, crossing, clear_noon: a view is black: luminance 2, limit 6."}
    assert made["rejected"] == made["missing"]
    assert any(f"Left out {gone}, which a quality gate rejected" in line for line in log)
    assert any("has no spare site left for 1 lost recordings of type" in line for line in log)


def test_the_data_set_is_written_without_what_failed(without_one, log, monkeypatch):
    folder, gone = without_one
    why = "Mini01, crossing, clear_noon: no image of frame 7."
    told = RecordingSummary(0, 1, {}, {gone: why})
    ledger = Ledger(folder)
    ledger.mark_failed(gone, why)
    ledger.close()
    monkeypatch.setattr("tasks.recording.task.record_plan", lambda *arguments, **named: told)
    made = collect(dataset="tiny", plan_preset="tiny")
    assert made["failed"] == made["missing"] == {gone: why}
    assert made["clips"] == 2
    assert any("1 of 2 recordings could not be made in this run, and the data set is written" in line for line in log)

    nothing = RecordingSummary(0, 0, {}, {gone: why})
    monkeypatch.setattr("tasks.recording.task.record_plan", lambda *arguments, **named: nothing)
    with pytest.raises(RecordingError, match=r"none of 1 recordings could be made \(Mini01.*frame 7\.\)"):
        collect(dataset="tiny", plan_preset="tiny")


def test_parameters_reach_the_recorder(tiny, state, monkeypatch):
    shutil.copytree(tiny.folder, state / "datasets" / "tiny")
    given: dict = {}
    told = RecordingSummary(0, 2, {}, {})
    monkeypatch.setattr("tasks.recording.task.record_plan", lambda *arguments, **named: given.update(named) or told)
    collect(dataset="tiny", plan_preset="tiny", recording_limit_s=900, run_limit_s=3600, retry_quarantined=True)
    assert (given["recording_limit_s"], given["run_limit_s"], given["retry_quarantined"]) == (900, 3600, True)
