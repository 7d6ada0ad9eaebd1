"""The data card: what it says is so, its snippet runs, it is made once."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from infra import mlflow_tracking
from infra.mlflow_tracking import DATA_EXPERIMENT, TrackingError
from tasks.planning.rows import read_plan
from tasks.sharding.card import MAX_DRAWN, choose_drawn, write_card
from tasks.sharding.reader import ClipPairs
from tasks.sharding.tracking import log_dataset


@pytest.fixture(scope="module")
def card(tiny, tmp_path_factory):
    """A copy of the data set with its card."""
    folder = tmp_path_factory.mktemp("card") / "tiny"
    shutil.copytree(tiny.folder, folder)
    assert write_card(folder)
    return folder / "dataset_card"


def test_it_is_made_once_for_a_digest(card):
    before = {path: path.stat().st_mtime_ns for path in card.iterdir()}
    assert not write_card(card.parent)
    assert before == {path: path.stat().st_mtime_ns for path in card.iterdir()}


def test_it_counts_what_is_there(card):
    text = (card / "README.md").read_text()
    assert "| Mini01 | train | " in text
    assert "4 pairs of clips from 2 recordings in 2 towns" in text
    assert "every recording of the plan is there" in text
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert len(pictures) == 4
    assert all((card / name).is_file() for name in pictures)


def test_the_snippet_runs_and_is_right(card):
    code = re.search(r"```python\n(.*?)```", (card / "README.md").read_text(), re.S)[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    found = re.findall(r"(\w+): ([\d.]+) m ahead, pixel \((-?[\d.]+), (-?[\d.]+)\)", done.stdout)
    assert found
    pair = ClipPairs(card.parent, "test")[0]
    height, width = pair.videos.shape[2] // 2, pair.videos.shape[3] // 2
    seen = 0
    for view, distance, u, v in ((name, *map(float, rest)) for name, *rest in found):
        if 0 <= u < width and 0 <= v < height:
            row, column = divmod(["front", "rear", "left", "right"].index(view), 2)
            at = int(v) + row * height, int(u) + column * width
            assert pair.instance[(0, -1, *at)] == 2
            assert abs(pair.depth_m[(0, -1, *at)] - distance) < 2.5
            seen += 1
    assert seen


def test_the_sheet_shows_the_clips(card):
    sheet = np.asarray(Image.open(card / "contact-sheet-Mini01.png").convert("RGB"))
    assert sheet.shape[1] > 1000
    red = (sheet[..., 0] > 120) & (sheet[..., 0] > 2.5 * sheet[..., 1].astype(float))
    assert red.sum() > 200  # the other car passes by


def test_the_plot_has_both_paths(card):
    plot = np.asarray(Image.open(card / "trajectories-Mini01.png").convert("RGB")).astype(int)
    for colour in ((200, 32, 47), (31, 95, 168), (212, 212, 212)):
        assert (np.abs(plot - colour).max(-1) < 12).sum() > 100


def test_a_large_town_shows_one_recording_a_type_first(tiny):
    import dataclasses

    row = read_plan(tiny.folder / "plan.parquet")[0]
    types = ["crossing"] * 9 + ["merging", "following"]
    many = [dataclasses.replace(row, recording_id=str(k), trajectory_type=kind) for k, kind in enumerate(types)]
    chosen = choose_drawn(many)
    assert len(chosen) == MAX_DRAWN
    assert {row.trajectory_type for row in chosen} == {"crossing", "merging", "following"}


@pytest.fixture
def tracking(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    return mlflow_tracking.mlflow_client()


def test_the_data_set_is_a_run_of_mlflow_found_by_its_digest(card, tracking):
    log_dataset(card.parent, {"prefect.flow_run_id": "one"})
    log_dataset(card.parent, {"prefect.flow_run_id": "two"})
    experiment = tracking.get_experiment_by_name(DATA_EXPERIMENT)
    (run,) = tracking.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["plan_preset"] == "tiny"
    assert run.data.metrics == {"clips": 4, "clips.train": 2, "clips.test": 2}
    assert run.data.tags["prefect.flow_run_id"] == "two"
    assert run.inputs.dataset_inputs[0].dataset.name == "tiny"
    names = {file.path for file in tracking.list_artifacts(run.info.run_id, "dataset_card")}
    assert "dataset_card/README.md" in names
    assert len(names) == len(list(card.iterdir()))


def test_without_mlflow_the_data_set_stays(card, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(TrackingError, match="make up"):
        log_dataset(card.parent, {})
    assert (card.parent / "dataset.json").exists()
