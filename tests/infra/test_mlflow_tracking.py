"""The run log against a real MLflow tracking store."""

from __future__ import annotations

import pytest

from infra import mlflow_tracking
from infra.mlflow_tracking import RunLog, TrackingError, flatten


@pytest.fixture
def tracking(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return mlflow_tracking.mlflow_client()


def test_the_same_key_finds_its_run_again(tracking):
    first = RunLog("shareverse", "abc", "demo", {"preset": "demo"})
    first.params({"learning_rate": 1e-3})
    first.close()
    again = RunLog("shareverse", "abc", "demo", {})
    again.params({"learning_rate": 1e-3})
    again.close()
    other = RunLog("shareverse", "abd", "demo", {})
    assert first.run_id == again.run_id != other.run_id
    assert tracking.get_run(first.run_id).info.status == "FINISHED"


def test_rows_sent_twice_are_one_point(tracking):
    log = RunLog("shareverse", "abc", "demo", {})
    rows = [{"step": step, "time_s": 1000.0 + step, "train/loss": 1.0 / step, "note": "x"} for step in (1, 2, 3)]
    log.metrics(rows)
    log.metrics(rows)
    history = tracking.get_metric_history(log.run_id, "train/loss")
    assert [(point.step, point.value) for point in history] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]


def test_rows_wait_while_mlflow_is_down_and_close_says_so(tracking, monkeypatch):
    from mlflow.exceptions import MlflowException

    log = RunLog("shareverse", "abc", "demo", {})
    send = log.client.log_batch

    def refuse(*arguments, **named):
        raise MlflowException("server is down")

    monkeypatch.setattr(log.client, "log_batch", refuse)
    log.metrics([{"step": 1, "time_s": 1.0, "train/loss": 0.5}])
    with pytest.raises(TrackingError, match=r"1 metric values.*server is down.*metrics.jsonl"):
        log.close()
    monkeypatch.setattr(log.client, "log_batch", send)
    log.close()
    assert tracking.get_run(log.run_id).data.metrics["train/loss"] == 0.5


def test_a_figure_that_is_no_number_is_refused(tracking):
    log = RunLog("shareverse", "abc", "demo", {})
    with pytest.raises(ValueError, match="eval/lpips is nan"):
        log.final_metrics({"eval/psnr": 20.0, "eval/lpips": float("nan")}, step=1)
    assert not tracking.get_run(log.run_id).data.metrics


def test_figures_sent_twice_are_one_point_and_a_new_value_is_the_last(tracking):
    log = RunLog("shareverse", "abc", "demo", {})
    figures = {"eval/psnr": 20.1, "eval/codec/psnr": 1 / 3}

    def history(name):
        points = sorted(tracking.get_metric_history(log.run_id, name), key=lambda point: (point.step, point.timestamp))
        return [(point.step, point.value) for point in points]

    for _ in range(2):
        log.final_metrics(figures, step=400)
    assert {name: history(name) for name in figures} == {name: [(400, value)] for name, value in figures.items()}
    log.final_metrics(figures, step=800)
    log.final_metrics(figures | {"eval/psnr": 19.9}, step=800)
    log.final_metrics(figures, step=400)  # an earlier checkpoint again
    assert history("eval/codec/psnr") == [(400, 1 / 3), (800, 1 / 3)]
    assert history("eval/psnr") == [(400, 20.1), (800, 20.1), (800, 19.9)]
    assert tracking.get_run(log.run_id).data.metrics["eval/psnr"] == 19.9


def test_a_figure_that_is_measured_at_last_is_missing_no_longer(tracking):
    log = RunLog("shareverse", "abc", "demo", {"shareverse.preset": "demo"})
    log.describe("without", {"lpips": "not measured: no weights", "seam_continuity": "not measured: a single view"})
    log.describe("with", {"seam_continuity": "not measured: narrow views"})
    tags = tracking.get_run(log.run_id).data.tags
    assert {name: tags[name] for name in tags if name.startswith("missing.")} == {
        "missing.seam_continuity": "not measured: narrow views"
    }
    assert (tags["mlflow.note.content"], tags["shareverse.preset"]) == ("with", "demo")


def test_the_dataset_is_an_input_of_the_run(tracking, tmp_path):
    log = RunLog("shareverse", "abc", "demo", {})
    log.dataset("demo", "0123456789abcdef" * 4, tmp_path)
    run = tracking.get_run(log.run_id)
    assert run.inputs.dataset_inputs[0].dataset.name == "demo"
    assert run.data.tags["shareverse.dataset_digest"] == "0123456789abcdef" * 4


def test_without_an_address_the_sentence_says_make_up(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(TrackingError, match="make up"):
        mlflow_tracking.mlflow_client()


def test_flat_joins_section_and_name():
    assert flatten({"a": {"b": 1, "c": {"d": 2}}, "e": 3, "f": {"g": 4}}, drop=("f",)) == {"a.b": 1, "a.c.d": 2, "e": 3}


def test_the_commit_is_told_or_unknown(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))  # an image without git
    monkeypatch.delenv("SHAREVERSE_GIT_SHA", raising=False)
    assert mlflow_tracking.git_sha() == "unknown"
    monkeypatch.setenv("SHAREVERSE_GIT_SHA", "0123abc")
    assert mlflow_tracking.git_sha() == "0123abc"
