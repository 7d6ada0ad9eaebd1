"""Verdicts for success and failure, and what an evaluation leaves on disk and in MLflow."""

from __future__ import annotations

import csv
import json
import shutil

import av
import numpy as np
import pytest
import torch
from mlflow.exceptions import MlflowException

from infra import mlflow_tracking
from infra.mlflow_tracking import TrackingError
from model.build import build_transformer
from model.codec import LinearCodec
from tasks.evaluation import scores as names
from tasks.evaluation.errors import EvaluationError
from tasks.evaluation.metrics import HIGHEST_DB
from tasks.evaluation.report import make_report
from tasks.evaluation.score import Evaluation, evaluate
from tasks.evaluation.scores import Scores
from tasks.evaluation.windows import Window, Windows
from tasks.evaluation.write import latents_dir_of, score
from tasks.sharding.reader import ClipIndex
from tasks.training.run import create_run

ROWS = (names.CODEC, names.FULL_STEPS, names.ONE_STEP, names.COPY, names.BLUR, names.SHUFFLED_PAIRS)


def evaluation_with(tmp_path, *, one_step: float, blur: float, shuffled: float, scenes: int = 4) -> Evaluation:
    """An evaluation of 3 windows a scene whose mean PSNR are the given ones, with a little spread between scenes."""
    scores = Scores(None)
    rng = np.random.default_rng(0)
    wanted = dict.fromkeys(ROWS, 16.0) | {names.ONE_STEP: one_step, names.BLUR: blur, names.SHUFFLED_RAYMAPS: shuffled}
    for number in range(scenes):
        row = {"key": f"clip{number}", "scene_id": f"s{number}", "recording_id": f"r{number}",
               "town": f"Town{number % 2}", "weather": "clear_noon", "trajectory_type": "crossing"}  # fmt: skip
        effect = rng.normal(0, 0.05)
        for start in (0, 8, 16):
            for name, value in wanted.items():
                values = torch.full((1, 2, 4, 8), value + effect * (name == names.ONE_STEP))
                found = {"psnr": values}
                if name != names.SHUFFLED_RAYMAPS:
                    found |= {"ssim": values / 40, "temporal_flickering": values[..., :7] / 40}
                scores.put(name, [Window(row, start)], found)
            scores.put(names.GROUND_TRUTH, [Window(row, start)], {"psnr": torch.full((1, 2, 4, 8), HIGHEST_DB)})
    return Evaluation(tmp_path / "step-000006", "test", 20, 2.0, scores, {"lpips": "not measured: no weights"})


def report_of(evaluation, trained=800):
    return make_report(evaluation, trained_steps=trained, train_steps=800, mlflow_url="http://x")


def test_a_model_above_the_baseline_that_looks_at_its_cameras(tmp_path):
    report = report_of(evaluation_with(tmp_path, one_step=19.4, blur=17.9, shuffled=18.9))
    scope, gain, cameras = report.verdict
    assert "12 windows of 4 clips, 4 scenes" in scope
    assert "Town0, Town1" in scope
    assert "not over" not in scope
    assert "1 step 19.4" in gain
    assert "(20 steps: 16.00)" in gain
    assert "copy (16.00) and blur (17.90, sigma 2 px)" in gain
    assert "learned (0.5 dB above or more)" in gain
    assert "NOT" not in gain
    assert cameras.endswith("the cameras are used.")
    assert "NOT" not in cameras
    assert report.metrics["eval/psnr_gain_1_step_low"] > 1.3
    assert report.metrics["eval/psnr_drop_shuffled_raymaps"] == pytest.approx(0.5, abs=0.1)


def test_a_model_below_the_baseline_is_called_so(tmp_path):
    report = report_of(evaluation_with(tmp_path, one_step=18.2, blur=17.9, shuffled=18.2), trained=400)
    scope, gain, cameras = report.verdict
    assert "The training is not over: step 400 of 800." in scope
    assert "NOT 0.5 dB above" in gain
    assert "learned" not in gain
    assert "that the cameras are used is NOT shown" in cameras
    low, high = (report.metrics[f"eval/psnr_drop_shuffled_raymaps_{end}"] for end in ("low", "high"))
    assert low < 0 < high


def test_one_scene_gives_no_interval_and_says_why(tmp_path):
    report = report_of(evaluation_with(tmp_path, one_step=19.4, blur=17.9, shuffled=18.9, scenes=1))
    assert "eval/psnr_drop_shuffled_raymaps" not in report.metrics
    assert "two scenes" in report.missing["psnr_drop_shuffled_raymaps"]
    assert "NOT shown" in report.verdict[2]


def test_the_better_baseline_is_the_one_to_beat(tmp_path):
    report = report_of(evaluation_with(tmp_path, one_step=16.8, blur=10.0, shuffled=16.0))
    assert report.metrics["eval/psnr_gain_1_step"] == pytest.approx(0.8, abs=0.1)


@pytest.fixture(scope="module")
def scored(fake_run, toy_home, tmp_path_factory):
    """The fake run, scored once: its report, MLflow client and progress."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHAREVERSE_HOME", str(toy_home))
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db")
        patch.chdir(tmp_path_factory.mktemp("artifacts"))
        patch.delenv("SHAREVERSE_ALEXNET", raising=False)
        calls: list[tuple[int, int, str]] = []
        report = score(fake_run, on_progress=lambda *call: calls.append(call))
        yield report, mlflow_tracking.client(), calls


def test_every_row_is_scored_on_the_same_windows(scored):
    report, _, calls = scored
    metrics = report.metrics
    for name in ("psnr", "ssim", "temporal_flickering"):
        assert {f"eval/{name}", f"eval/{name}_1_step"} <= set(metrics)
        for row in ("codec", "copy_first_frame", "blurred_first_frame", "shuffled_pairs"):
            assert f"eval/{row}/{name}" in metrics
    assert "eval/ground_truth/temporal_flickering" in metrics
    assert "eval/ground_truth/psnr" not in metrics
    assert not any("lpips" in name for name in metrics)
    assert report.missing["lpips"].startswith("not measured: ")
    assert {row["windows"] for row in report.rows} == {6}
    assert all(np.isfinite(list(metrics.values())))
    assert metrics["eval/codec/psnr"] > metrics["eval/psnr_1_step"] + 5
    assert metrics["eval/codec/psnr"] > metrics["eval/shuffled_pairs/psnr"]
    assert calls[-1][:2] == (6, 6)


def test_at_its_start_the_model_does_not_use_its_cameras(scored):
    """The raymap encoders are zero: whatever the raymaps, the same video."""
    report = scored[0]
    assert report.metrics["eval/psnr_drop_shuffled_raymaps"] == pytest.approx(0, abs=1e-4)
    assert "NOT 0.5 dB above" in report.verdict[1]
    assert "NOT shown" in report.verdict[2]


def test_the_folder_holds_report_table_plots_videos_and_one_page(scored, run):
    folder = run.folder / "evaluation"
    record = json.loads((folder / "report.json").read_text())
    assert {"metrics", "missing", "verdict", "mlflow_url", "convention", "checkpoint", "split", "clips"} <= set(record)
    assert record["clips"] == 3
    assert record["split"] == "test"
    assert record["checkpoint"].endswith("step-000006")
    assert "frame 0" in record["convention"]
    with open(folder / "windows.csv") as file:
        lines = list(csv.DictReader(file))
    codec = [float(line["psnr"]) for line in lines if line["row"] == "codec"]
    assert len(codec) == 6
    assert np.mean(codec) == pytest.approx(record["metrics"]["eval/codec/psnr"], abs=1e-3)
    videos = sorted(folder.glob("*.mp4"))
    assert len(videos) == 3
    with av.open(str(videos[0])) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.width >= 2 * 480
        assert sum(1 for _ in container.decode(stream)) == 9
    data = videos[0].read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # faststart
    page = (folder / "report.html").read_text()
    assert page.count("data:video/mp4;base64,") == 3
    assert 'src="http' not in page
    assert {"still.png", "psnr_by_frame.png", "psnr_by_group.png"} <= {path.name for path in folder.iterdir()}


def test_mlflow_has_the_figures_on_the_trainings_own_run(scored, run):
    report, client, _ = scored
    experiment = client.get_experiment_by_name("shareverse")
    logged = client.search_runs([experiment.experiment_id])
    assert len(logged) == 1
    assert logged[0].data.tags["shareverse.run_id"] == run.run_id
    assert logged[0].info.status == "FINISHED"
    assert logged[0].data.metrics == pytest.approx(report.metrics)
    assert logged[0].data.params["sampling_steps"] == str(run.preset.sampling.sampling_steps)
    assert logged[0].data.tags["missing.lpips"].startswith("not measured")
    artifacts = {file.path for file in client.list_artifacts(logged[0].info.run_id, "evaluation")}
    assert {"evaluation/report.html", "evaluation/report.json", "evaluation/still.png"} <= artifacts
    finished = run.finished()
    assert finished["metrics"] == report.metrics
    assert finished["mlflow_url"] == report.mlflow_url
    assert logged[0].info.run_id in report.mlflow_url


def test_a_figure_does_not_depend_on_what_else_is_scored_with_it(scored, run, monkeypatch):
    monkeypatch.setattr("tasks.evaluation.sampling.TOKENS_AT_ONCE", 1)
    alone = evaluate(run, run.dataset_dir, latents_dir_of(run))
    assert alone.scores.mean(names.FULL_STEPS, "psnr") == pytest.approx(scored[0].metrics["eval/psnr"], abs=1e-3)


def test_what_cannot_be_scored_is_one_sentence(run, tmp_path):
    untrained = create_run("toy", run.preset, "untrained")
    with pytest.raises(EvaluationError, match=f"run {untrained.run_id} has no checkpoint.*train it first"):
        evaluate(untrained, run.dataset_dir, latents_dir_of(run))
    other = tmp_path / "other"
    shutil.copytree(run.dataset_dir, other)
    record = json.loads((other / "dataset.json").read_text())
    (other / "dataset.json").write_text(json.dumps(record | {"digest": "f" * 64}))
    with pytest.raises(EvaluationError, match=r"trained on data .* is ffffffffffff now"):
        evaluate(run, other, latents_dir_of(run))
    with pytest.raises(EvaluationError, match="no clips in split 'nothing'"):
        evaluate(run, run.dataset_dir, latents_dir_of(run), "nothing")


def test_the_task_refuses_another_data_sets_run(run):
    from tasks.evaluation.task import score_run

    with pytest.raises(EvaluationError, match="was trained on data set 'toy', not 'demo'"):
        score_run.fn("demo", run.run_id)


def test_an_evaluation_that_mlflow_does_not_take_stays_on_disk_and_unfinished(scored, run, monkeypatch):
    def refuse(*arguments, **named):
        raise MlflowException("server is down")

    (run.folder / "finished.json").unlink()
    monkeypatch.setattr("infra.mlflow_tracking.RunLog.artifacts", refuse)
    with pytest.raises(TrackingError, match=r"server is down.*evaluation: run evaluate-shareverse again"):
        score(run)
    assert (run.folder / "evaluation" / "report.json").exists()
    assert run.finished() is None


def test_a_front_view_model_is_scored_on_one_view(run):
    front = create_run("toy", run.preset.replace(views="front", train_steps=7), "front")
    add_front_checkpoint(front)
    evaluation = evaluate(front, front.dataset_dir, latents_dir_of(front), "val")
    assert {values.shape[1] for values in evaluation.scores.arrays[names.CODEC, "psnr"].values()} == {1}
    report = make_report(evaluation, trained_steps=6, train_steps=7, mlflow_url="")
    assert "eval_val/psnr" in report.metrics
    assert "step 6 of 7" in report.verdict[0]


def add_front_checkpoint(run) -> None:
    """A random model and codec for single views."""
    folder = run.folder / "checkpoints" / "step-000006"
    build_transformer(run.preset).save_pretrained(folder / "model")
    (folder / "trainer.json").write_text("{}")
    video = Windows(run.dataset_dir, ClipIndex(run.dataset_dir).split("train"), run.preset).video([0])
    LinearCodec.fit([video.flatten(0, 1)], run.preset.codec.latent_channels).save_pretrained(
        latents_dir_of(run) / "codec"
    )
