"""Verdicts for success and failure, and what an evaluation leaves on disk and in MLflow."""

from __future__ import annotations

import csv
import json
import shutil
from html import escape

import av
import numpy as np
import pytest
import torch

from infra import mlflow_tracking
from model.build import build_transformer
from model.codec import LinearCodec
from tasks.evaluation.errors import EvaluationError
from tasks.evaluation.measures.metrics import HIGHEST_DB
from tasks.evaluation.report.films import error_map
from tasks.evaluation.report.page import Estimate, Missing
from tasks.evaluation.report.plots import plot_by_group
from tasks.evaluation.report.report import make_report, orders
from tasks.evaluation.report.report_page import missing_table, shared_table
from tasks.evaluation.report.write import films_of, known_distances, latents_dir_of, score_checkpoint, url_of
from tasks.evaluation.scoring import scores as names
from tasks.evaluation.scoring.exchange import WITHOUT, WITHOUT_ONE_STEP, add_without, check_without, steps_trained
from tasks.evaluation.scoring.score import Evaluation, evaluate
from tasks.evaluation.scoring.scores import Scores
from tasks.evaluation.scoring.windows import Window, Windows
from tasks.runs.outbox import deliver
from tasks.runs.run import Run, create_run
from tasks.sharding.reader import ClipIndex
from tasks.sharding.shards import write_shards

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
    assert "12 windows from 4 clips of 4 scenes" in scope
    assert "Town0, Town1" in scope
    assert "not ended" not in scope
    assert "PSNR is 19.4" in gain
    assert "(20 steps: 16.00)" in gain
    assert "16.00 dB copied and 17.90 dB blurred (sigma 2 px)" in gain
    assert "0.5 dB or more above, so it has learned" in gain
    assert "NOT" not in gain
    assert cameras.endswith("1 step: cameras are used.")
    assert "NOT" not in cameras
    assert report.metrics["eval/psnr_gain_1_step_low"] > 1.3
    assert report.metrics["eval/psnr_drop_shuffled_raymaps"] == pytest.approx(0.5, abs=0.1)


def test_a_model_below_the_baseline_is_called_so(tmp_path):
    report = report_of(evaluation_with(tmp_path, one_step=18.2, blur=17.9, shuffled=18.2), trained=400)
    scope, gain, cameras = report.verdict
    assert "The training has not ended: step 400 of 800." in scope
    assert "NOT 0.5 dB above" in gain
    assert "learned" not in gain
    assert "it is NOT shown that cameras are used" in cameras
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


def test_what_a_figure_ranks_wrongly_is_said(tmp_path):
    """The codec's 16 dB are no ceiling here."""
    evaluation = evaluation_with(tmp_path, one_step=15.0, blur=17.9, shuffled=14.0)
    for name, values in evaluation.scores.arrays[names.SHUFFLED_PAIRS, "psnr"].items():
        evaluation.scores.arrays[names.SHUFFLED_PAIRS, "psnr"][name] = values - 4
    report = report_of(evaluation)
    assert report.orders["psnr"] == {"1 step": True, "20 steps": False}
    assert "temporal_flickering" not in report.orders


def test_an_order_is_over_the_windows_that_all_have(tmp_path):
    """At full steps the model has easy windows alone, and is worse there than another scene's video."""
    evaluation = evaluation_with(tmp_path, one_step=16.0, blur=17.9, shuffled=14.0)
    arrays = evaluation.scores.arrays
    easy = [name for name in evaluation.scores.windows if name.startswith("clip0")]

    def put(row: str, in_easy: float, in_others: float) -> None:
        for name, values in arrays[row, "psnr"].items():
            values[:] = in_easy if name in easy else in_others

    put(names.CODEC, 24.0, 20.0)
    put(names.SHUFFLED_PAIRS, 19.0, 9.0)
    arrays[names.FULL_STEPS, "psnr"] = {name: np.full((2, 4, 8), 18.0) for name in easy}
    ceiling, model, floor = (
        evaluation.scores.mean(row, "psnr") for row in (names.CODEC, names.FULL_STEPS, names.SHUFFLED_PAIRS)
    )
    assert ceiling > model > floor  # each over its own windows
    assert orders(evaluation)["psnr"] == {"1 step": True, "20 steps": False}
    put(names.SHUFFLED_PAIRS, 17.0, 9.0)
    assert orders(evaluation)["psnr"] == {"1 step": True, "20 steps": True}
    arrays[names.CODEC, "psnr"] = {
        name: values for name, values in arrays[names.CODEC, "psnr"].items() if name not in easy
    }
    assert orders(evaluation)["psnr"] == {"1 step": True}  # no window that all have


def test_the_worst_windows_are_listed_lowest_first(tmp_path):
    evaluation = evaluation_with(tmp_path, one_step=19.4, blur=17.9, shuffled=18.9)
    evaluation.scores.arrays[names.FULL_STEPS, "psnr"]["clip2+08"][:] = 9.0
    worst = report_of(evaluation).worst
    assert worst[0]["window"] == "clip2+08"
    assert worst[0]["psnr"][names.FULL_STEPS] == 9.0
    assert worst[0]["psnr"][names.COPY] == 16.0
    assert [line["town"] for line in worst] == ["Town0", "Town0", "Town1", "Town1"]
    assert len({line["window"].split("+")[0] for line in worst}) == 4


def test_a_run_without_exchange_stands_beside(tmp_path):
    evaluation, other = (evaluation_with(tmp_path, one_step=mean, blur=17.9, shuffled=18.9) for mean in (19.4, 18.4))
    add_without(evaluation, other)
    report = report_of(evaluation)
    rows = {row["row"]: row for row in report.rows}
    assert rows[WITHOUT_ONE_STEP]["psnr"]["mean"] == pytest.approx(18.4, abs=0.1)
    assert rows[WITHOUT]["label"] == "without exchange, 20 steps"
    assert report.metrics["eval/psnr_gain_exchange_1_step"] == pytest.approx(1.0)
    assert "+1.00 dB [+1.00, +1.00] at 1 step (a gain is shown)" in report.verdict[3]
    assert "+0.00 dB [+0.00, +0.00] at 20 steps (a gain is NOT shown)" in report.verdict[3]
    assert report.orders["psnr"] == {"1 step": False, "20 steps": False}


def test_a_figure_nobody_foresaw_is_shown(tmp_path):
    evaluation = evaluation_with(tmp_path, one_step=19.4, blur=17.9, shuffled=18.9)
    for window in evaluation.scores.windows.values():
        evaluation.scores.put_figures("another_source", window, {"something_new": 0.25})
    report = report_of(evaluation)
    assert report.metrics["eval/another_source/something_new"] == 0.25
    table = shared_table(report)
    assert table is not None
    assert table.columns == ["figure", "order", "another source"]
    assert table.rows[0].label == "something new"
    assert table.rows[0].cells == [None, Estimate(0.25, 0.25, 0.25)]


def test_a_figure_that_only_some_sources_lack_names_them(tmp_path):
    evaluation = evaluation_with(tmp_path, one_step=19.4, blur=17.9, shuffled=18.9)
    evaluation.missing |= {f"{row}/other_recall_far": "not measured: too few" for row in (names.CODEC, names.COPY)}
    table = missing_table(report_of(evaluation))
    assert table is not None
    assert [row.label for row in table.rows] == ["LPIPS ↓", "other car found where it is, farther than 25 m ↑"]
    assert table.rows[0].cells[1] == Missing("all")
    assert table.rows[1].cells == [
        Missing("not measured: too few"), Missing("codec round trip (ceiling), first frame, copied"),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def scored(fake_run, toy_home, tmp_path_factory):
    """The fake run, scored once: its report, MLflow client and progress."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHAREVERSE_HOME", str(toy_home))
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db")
        patch.chdir(tmp_path_factory.mktemp("artifacts"))
        patch.delenv("SHAREVERSE_ALEXNET", raising=False)
        calls: list[tuple[int, int, str]] = []
        report = score_checkpoint(fake_run, on_progress=lambda *call: calls.append(call))
        yield report, mlflow_tracking.mlflow_client(), calls


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
    videos = sorted(folder.glob("[!w]*.mp4"))
    assert len(videos) == 3
    with av.open(str(videos[0])) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.width >= 2 * 480
        assert sum(1 for _ in container.decode(stream)) == 9
    data = videos[0].read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # faststart
    names = {path.name for path in folder.iterdir()}
    plots = {
        f"psnr_by_{what}{end}.png" for what in ("frame", "distance", "town", "weather", "type") for end in ("", "_dark")
    }
    assert {"still.png", "drift_psnr.png", "drift_sharpness.png", "drift_other_bearing_deg.png"} | plots <= names


def test_the_page_shows_every_figure_and_every_film(scored, run):
    folder = run.folder / "evaluation"
    page = (folder / "report.html").read_text()
    films = len(list(folder.glob("*.mp4")))
    assert page.count('<article class="film"') == films >= 4
    assert page.count("data:video/mp4;base64,") == films * 4  # recorded, model, 1 step, error
    assert len(list(folder.glob("worst_*.mp4"))) == films - 3
    assert page.count("data:image/png;base64,") == 1 + 2 * 8  # the still, eight plots in light and dark
    assert ">Long videos</h" in page
    assert "other car found: recorded (ground truth)" in page
    assert "rollout window" not in page  # each has its column
    for figure in scored[0].missing.values():
        assert escape(figure) in page
    for metric in ("PSNR, dB ↑", "co-visible agreement", "temporal flickering</th>"):
        assert metric in page
    assert "distance of the other car" in page


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
    monkeypatch.setattr("tasks.evaluation.scoring.sampling.TOKENS_AT_ONCE", 1)
    alone = evaluate(run, run.dataset_dir, latents_dir_of(run))
    assert alone.scores.mean(names.FULL_STEPS, "psnr") == pytest.approx(scored[0].metrics["eval/psnr"], abs=1e-3)


def test_what_cannot_be_scored_is_one_sentence(run, tmp_path):
    untrained = create_run("toy", run.preset, "untrained")
    with pytest.raises(EvaluationError, match=f"run {untrained.run_id} has no checkpoint.*train it first"):
        evaluate(untrained, run.dataset_dir, latents_dir_of(run))
    other = tmp_path / "other"
    shutil.copytree(run.dataset_dir, other)
    digest = write_shards(other, samples_per_shard=1).digest
    with pytest.raises(EvaluationError, match=rf"trained on data .* is {digest[:12]} now"):
        evaluate(run, other, latents_dir_of(run))
    with pytest.raises(EvaluationError, match="no clips in split 'nothing'"):
        evaluate(run, run.dataset_dir, latents_dir_of(run), "nothing")


def test_the_task_refuses_another_data_sets_run(run):
    from tasks.evaluation.task import score_run

    with pytest.raises(EvaluationError, match="was trained on data set 'toy', not 'demo'"):
        score_run.fn("demo", run.run_id)


def test_a_run_is_scored_without_mlflow_and_its_figures_are_sent_later_once(scored, run, monkeypatch):
    (run.folder / "finished.json").unlink()
    shutil.rmtree(run.folder / "evaluation")
    said: list[str] = []
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nobody answers there
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        report = score_checkpoint(run, on_unsent=said.append)
        assert "sent by the next flow that works on this run" in said[0]
        assert deliver(run, {}) == said[0]
    assert len(said) == 1
    assert (run.folder / "evaluation" / "report.json").exists()
    assert report.mlflow_url == run.finished()["mlflow_url"] == ""
    assert run.finished()["metrics"] == report.metrics
    assert len(list((run.folder / "outbox").iterdir())) == 1

    _, client, _ = scored
    for _ in range(2):
        assert deliver(run, {}) == ""
    assert not list((run.folder / "outbox").iterdir())
    (logged,) = client.search_runs([client.get_experiment_by_name("shareverse").experiment_id])
    assert logged.info.run_id in run.finished()["mlflow_url"]
    assert logged.info.status == "FINISHED"
    assert logged.data.metrics == pytest.approx(report.metrics)
    assert len(client.get_metric_history(logged.info.run_id, "eval/codec/psnr")) == 1  # equal to what was there


def test_scoring_that_fails_marks_the_run_as_failed_and_says_why(scored, run, monkeypatch):
    def refuse(*given):
        raise EvaluationError("the clips cannot be read: collect them again.")

    _, client, _ = scored
    with monkeypatch.context() as patch:
        patch.setattr("tasks.evaluation.report.write.measured", refuse)
        with pytest.raises(EvaluationError, match="cannot be read"):
            score_checkpoint(run)
    (logged,) = client.search_runs([client.get_experiment_by_name("shareverse").experiment_id])
    assert logged.info.status == "FAILED"
    assert logged.data.tags["shareverse.failure"] == "the clips cannot be read: collect them again"
    url_of(run)
    assert "shareverse.failure" not in client.get_run(logged.info.run_id).data.tags


def test_unknown_distances_are_missing_with_their_reason(run, tmp_path, monkeypatch):
    def refuse(*arguments):
        raise EvaluationError("not measured: clip a does not hold the poses")

    monkeypatch.setattr("tasks.evaluation.report.write.distances", refuse)
    evaluation = evaluation_with(tmp_path, one_step=19.4, blur=17.9, shuffled=18.9)
    assert known_distances(run, evaluation) is None
    report = report_of(evaluation)
    assert report.missing["psnr_by_distance"] == "not measured: clip a does not hold the poses"
    assert plot_by_group(report, tmp_path) == ["psnr_by_town", "psnr_by_weather", "psnr_by_type"]


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


def test_only_a_run_of_equal_data_and_size_without_exchange_may_stand_beside(run, monkeypatch):
    preset = run.preset
    off = Run("toy", run.dataset_digest, preset.replace(cross_agent="off"))
    with pytest.raises(EvaluationError, match=r"for 6 steps and run \w+ for 0: train both equally"):
        check_without(run, off)
    steps = [steps_trained(run)]
    monkeypatch.setattr("tasks.evaluation.scoring.exchange.steps_trained", lambda run: steps[0])
    check_without(run, off)
    with pytest.raises(EvaluationError, match="exchanges nothing itself"):
        check_without(off, Run("toy", run.dataset_digest, preset.replace(cross_agent="within")))
    for other, said in (
        (run, "exchanges between agents itself"),
        (Run("toy", "f" * 64, off.preset), "compare runs of one data set"),
        (Run("toy", run.dataset_digest, off.preset.replace(sampling_steps=7)), "differ in video, codec or sampling"),
    ):
        with pytest.raises(EvaluationError, match=said):
            check_without(run, other)


def test_the_films_show_the_run_without_exchange(run):
    evaluation = evaluate(run, run.dataset_dir, latents_dir_of(run), "val")
    films = films_of(run, evaluation, run)
    assert [film.worst for film in films] == [False] + [True] * (len(films) - 1)
    for film in films:
        steps = f"{evaluation.steps} steps"
        labels = f"recorded|model, {steps}|model, 1 step|without exchange, {steps}|error of the model, {steps}"
        assert list(film.sources) == labels.split("|")
        assert {videos.shape for videos in film.sources.values()} == {(2, 9, 32, 48, 3)}
        assert (film.sources[f"without exchange, {steps}"] == film.sources[f"model, {steps}"]).all()
        generated, truth = (film.sources[label].astype(float) for label in (f"model, {steps}", "recorded"))
        error_db = -10 * np.log10(((generated - truth)[:, 1:] ** 2).mean((2, 3, 4)) / 255**2)
        assert film.psnr_db[f"model, {steps}"] == pytest.approx(error_db.mean(), abs=1.5)


def test_an_error_map_is_black_where_nothing_differs():
    truth = np.zeros((1, 1, 1, 3, 3), np.uint8)
    generated = truth.copy()
    generated[..., 1, :], generated[..., 2, :] = 51, 255
    colours = error_map(generated, truth)[0, 0, 0].astype(int).sum(-1)
    assert colours[0] < 10 < colours[1] < colours[2]
