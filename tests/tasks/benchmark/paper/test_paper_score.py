"""The arms of the paper's ablations on a small data set: scored alike, kept run by run, side by side in MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import mlflow
import pytest
import torch
from mlflow.exceptions import MlflowException

from infra import mlflow_tracking
from model.presets import FOLDER, Preset
from tasks.benchmark.errors import BenchmarkError
from tasks.benchmark.paper import task as paper_task
from tasks.benchmark.paper.score import MARKER, SCORING, PaperScoring, score_paper_arm, shrunk
from tasks.benchmark.paper.study import EXPERIMENT, SWITCHES, PaperStudy
from tasks.evaluation.scoring.sampling import Sampler
from tasks.evaluation.scoring.windows import Windows
from tasks.sharding.reader import ClipIndex
from tests.synthetic_dataset import write_dataset
from tests.tasks.benchmark.untrained import stand_ins

TINY = FOLDER / "tiny.toml"
STUDY = PaperStudy("toy", Preset.load("tiny"), (0,))
UNUSED = cast(Sampler, None)


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    """A state folder with a data set of three held-out scenes, two windows each."""
    folder = tmp_path_factory.mktemp("home")
    write_dataset(folder / "datasets" / "toy", train=2, val=1, test=3)
    return folder


@pytest.fixture
def home(toy, monkeypatch) -> Path:
    monkeypatch.setenv("SHAREVERSE_HOME", str(toy))
    return toy


class Seer:
    """Stands in for a checkpoint: generates the true videos, changed by `spoil` [N, A, 3, T, H, W]."""

    batch = 4

    def __init__(self, run, spoil=lambda video: video) -> None:
        windows = Windows(run.dataset_dir, ClipIndex(run.dataset_dir).split("test"), run.preset)
        self.truth = {window.name: windows.video([index])[0] for index, window in enumerate(windows)}
        self.spoil = spoil

    def generate(self, first: torch.Tensor, raymaps: torch.Tensor, names: list[str], steps: int) -> torch.Tensor:
        truth = torch.stack([self.truth[name] for name in names])
        assert torch.equal(first, truth[:, :, :, 0])
        assert raymaps.shape[-2:] == (truth.shape[-2] // 8, truth.shape[-1] // 8)
        return self.spoil(truth)

    def round_trip(self, video: torch.Tensor) -> torch.Tensor:
        return video


def means(name: str, spoil=lambda video: video) -> dict[str, float]:
    """Score a stand-in for an arm."""
    index = list(SWITCHES).index(name)
    run = STUDY.open_runs()[index]
    score = score_paper_arm(STUDY, STUDY.arms[index], run, cast(Sampler, Seer(run, spoil)))
    assert {len(values) for values in score.figures.values()} == {6}
    return {figure: score.interval(figure).mean for figure in score.figures}


def test_both_arms_have_the_same_front_view_at_the_common_size(home):
    assert STUDY.front_size == (16, 24)
    base, front = means("base"), means("front")
    assert base["front_psnr"] == front["front_psnr"] == 60.0
    assert base["front_ssim"] == pytest.approx(1.0, abs=1e-6)
    assert base["front_psnr_copy"] == pytest.approx(front["front_psnr_copy"], abs=1e-3)
    assert base["front_psnr_copy"] < 40
    assert "psnr" in base
    assert not any(not figure.startswith("front_") for figure in front)


def test_the_front_figures_look_at_the_front_view_alone(home):
    def blank(video: torch.Tensor) -> torch.Tensor:
        height, width = video.shape[-2] // 2, video.shape[-1] // 2
        grey = torch.zeros_like(video)
        grey[..., :height, :width] = video[..., :height, :width]
        return grey

    found = means("base", blank)
    assert found["front_psnr"] == 60.0
    assert found["psnr"] < 40
    assert found["psnr_2_steps"] == found["psnr"]


def test_a_video_that_stands_still_scores_as_copying_does(home):
    found = means("base", lambda video: video[:, :, :, :1].expand_as(video))
    for name in ("psnr", "ssim", "front_psnr", "front_ssim"):
        assert found[name] == pytest.approx(found[f"{name}_copy"])


def test_shrinking_averages_areas():
    view = torch.arange(16.0).view(1, 1, 4, 4).expand(2, 3, 4, 4)
    assert shrunk(view, (2, 2))[0, 0].tolist() == [[2.5, 4.5], [10.5, 12.5]]
    assert shrunk(view, (4, 4)) is view


def test_other_data_and_an_empty_split_are_refused(home, tmp_path, monkeypatch):
    run = STUDY.open_runs()[0]
    rows = ClipIndex(run.dataset_dir).rows
    monkeypatch.setattr(ClipIndex, "split", lambda self, name: [] if name == "test" else rows)
    with pytest.raises(BenchmarkError, match="has no clips in split 'test'"):
        PaperScoring(STUDY, run, UNUSED)
    changed = type(run)(run.dataset, "0" * 64, run.preset, run.name)
    with pytest.raises(BenchmarkError, match="was changed since run"):
        PaperScoring(STUDY, changed, UNUSED)


@pytest.fixture
def compare(home, monkeypatch, tmp_path):
    """The Prefect task as a plain function, with models at their random start for trained ones; what it did."""
    did: dict[str, list] = {"trained": [], "scored": [], "said": []}

    def scoring(study, arm, *given):
        did["scored"].append(arm.name)
        return score_paper_arm(study, arm, *given)

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    beside = {"create_markdown_artifact": lambda *given, **named: None, "score_paper_arm": scoring}
    for name, stand_in in (stand_ins(did) | beside).items():
        monkeypatch.setattr(paper_task, name, stand_in)
    yield lambda: paper_task.compare_with_paper.fn("quick", "toy", str(TINY)), did
    for run in STUDY.open_runs():
        (run.folder / MARKER).unlink(missing_ok=True)


def logged() -> dict[str, mlflow.entities.Run]:
    client = mlflow_tracking.mlflow_client()
    experiment = client.get_experiment_by_name(EXPERIMENT)
    return {run.data.params["arm"]: run for run in client.search_runs([experiment.experiment_id])}


def test_all_arms_side_by_side_and_nothing_done_twice(compare):
    run_it, did = compare
    rows = run_it()
    assert [row["arm"] for row in rows] == did["scored"] == list(SWITCHES)
    runs = logged()
    assert runs.keys() == SWITCHES.keys()
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    for row in rows:
        metrics, params = runs[row["arm"]].data.metrics, runs[row["arm"]].data.params
        assert metrics["front_psnr"] == pytest.approx(row["front_psnr"])
        assert params["seed"] == "0"
        assert params["cross_agent"] == SWITCHES[row["arm"]]["cross_agent"]
    assert "base_lead_psnr_low" in runs["off"].data.metrics
    assert "base_lead_front_psnr" in runs["front"].data.metrics
    assert not any("lead" in name for name in runs["base"].data.metrics)
    note = runs["base"].data.tags["mlflow.note.content"]
    assert note.count("PROVES NOTHING") == 4  # one seed, untrained
    title, *lines = note.split("\n\n")
    assert title == "quick-paper-ablations.html:"
    assert all(line in did["said"] for line in lines)
    files = mlflow_tracking.mlflow_client().list_artifacts(runs["base"].info.run_id, "comparison")
    assert [file.path for file in files] == ["comparison/quick-paper-ablations.html"]

    trained = list(did["trained"])
    assert run_it() == rows
    assert (did["trained"], did["scored"]) == (trained, list(SWITCHES))
    (STUDY.open_runs()[2].folder / MARKER).unlink()
    assert run_it() == rows
    assert did["scored"] == [*SWITCHES, "raw"]
    marker = STUDY.open_runs()[4].folder / MARKER
    marker.write_text(marker.read_text().replace(f'"scoring": {SCORING}', f'"scoring": {SCORING - 1}'))
    assert run_it() == rows
    assert did["scored"] == [*SWITCHES, "raw", "off"]
    assert did["trained"] == trained
    assert len(logged()) == len(SWITCHES)


def test_figures_that_mlflow_does_not_take_are_kept_and_sent_by_the_next_flow(compare, monkeypatch):
    run_it, did = compare

    def refuse(self, values, step):
        raise MlflowException("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(mlflow_tracking.RunLog, "final_metrics", refuse)
        rows = run_it()
    assert did["scored"] == list(SWITCHES)
    assert any("the disk is full" in line and "sent by the next flow" in line for line in did["said"])
    assert run_it() == rows
    assert did["scored"] == list(SWITCHES)
    runs = logged()
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert runs["raw"].data.metrics["front_psnr"] == pytest.approx(rows[2]["front_psnr"])


def test_a_run_that_is_not_trained_is_not_scored(home):
    run = PaperStudy("toy", STUDY.preset, (7,)).open_runs()[0]
    with pytest.raises(BenchmarkError, match="is not trained to its end"):
        paper_task.paper_sampler(run)


def test_a_data_set_that_is_not_there_is_told(home):
    assert paper_task.is_collected("toy")
    assert not paper_task.is_collected("elsewhere")
