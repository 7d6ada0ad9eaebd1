"""What MLflow misses waits in the run, and is sent once."""

from __future__ import annotations

import json

import pytest

from infra import mlflow_tracking
from tasks.runs.mlflow_run import target_of
from tasks.runs.outbox import Outbox, Parcel, deliver, mark_failed, post
from tasks.runs.spool import append_row
from tasks.training.tracking import TrainingLog

DOWN = "http://127.0.0.1:9"


@pytest.fixture
def mlflow_of(tmp_path, monkeypatch):
    """Make MLflow answer or not; return a client while it does."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    def switch(up: bool):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db" if up else DOWN)
        return mlflow_tracking.mlflow_client() if up else None

    return switch


def runs_of(client):
    return client.search_runs([client.get_experiment_by_name("shareverse").experiment_id])


def waiting(run):
    return sorted(path.name for path in (run.folder / "outbox").glob("*"))


def test_a_training_and_its_figures_wait_and_are_sent_once_in_their_order(new_run, mlflow_of):
    run, _ = new_run("waits")
    mlflow_of(False)
    (run.folder / "samples").mkdir()
    (run.folder / "samples/step-000002.png").write_bytes(b"picture")
    for step in (1, 2):
        extra = {"sample": "samples/step-000002.png"} if step == 2 else {}
        append_row(run.spool, {"step": step, "time_s": 1000.0 + step, "train/loss": 1 / step, **extra})
    log = TrainingLog(run, {})
    log.rows([{"step": 1, "time_s": 1001.0, "train/loss": 1.0}])
    assert str(run.folder) in log.end()
    report = run.folder / "evaluation"
    report.mkdir()
    (report / "report.json").write_text("{}")
    parcel = Parcel(
        "evaluation", step=2, metrics={"eval/psnr": 20.5}, note="good", missing={"lpips": "not measured"},
        artifacts={f"runs/{run.run_id}/evaluation": "evaluation"}, status="FINISHED",
    )  # fmt: skip
    assert "sent by the next flow that works on this run" in post(run, parcel, {})
    assert len(waiting(run)) == 2
    (run.folder / "finished.json").write_text(json.dumps({"metrics": {"eval/psnr": 20.5}, "mlflow_url": ""}))

    client = mlflow_of(True)
    for _ in range(2):
        assert deliver(run, {}) == ""
        assert waiting(run) == []
    (logged,) = runs_of(client)
    assert logged.info.status == "FINISHED"
    assert logged.data.metrics == {"train/loss": 0.5, "eval/psnr": 20.5}
    assert logged.data.tags["missing.lpips"] == "not measured"
    assert [point.step for point in client.get_metric_history(logged.info.run_id, "train/loss")] == [1, 2]
    assert {file.path for file in client.list_artifacts(logged.info.run_id)} == {"samples", "evaluation"}
    assert logged.info.run_id in run.finished()["mlflow_url"]
    (run.folder / "finished.json").unlink()


def test_what_was_half_sent_is_sent_again_without_doubles(new_run, mlflow_of, monkeypatch):
    run, _ = new_run("half-sent")
    client = mlflow_of(True)
    parcel = Parcel("evaluation", step=3, metrics={"eval/psnr": 1 / 3}, note="n", status="FINISHED")

    def killed(self, file, url):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Outbox, "sent", killed)
        with pytest.raises(KeyboardInterrupt):
            post(run, parcel, {})
    assert deliver(run, {}) == ""
    found = [logged for logged in runs_of(client) if logged.data.tags["shareverse.run_id"] == run.run_id]
    assert len(found) == 1
    assert len(client.get_metric_history(found[0].info.run_id, "eval/psnr")) == 1


def test_a_failure_is_told_when_mlflow_answers_and_forgotten_when_the_run_goes_on(new_run, mlflow_of):
    run, _ = new_run("fails")
    mlflow_of(False)
    assert mark_failed(run, {}, RuntimeError("the disk\nis full."))
    client = mlflow_of(True)
    assert deliver(run, {}) == ""
    (logged,) = [logged for logged in runs_of(client) if logged.data.tags["shareverse.run_id"] == run.run_id]
    assert (logged.info.status, logged.data.tags["shareverse.failure"]) == ("FAILED", "the disk is full")
    target_of(run)(run, {})
    assert "shareverse.failure" not in client.get_run(logged.info.run_id).data.tags


@pytest.mark.parametrize("text", ["", "{", "[]", '{"time_s": 1, "target": {}, "parcel": {"kind": "a", "other": 1}}'])
def test_a_damaged_parcel_is_one_sentence(new_run, mlflow_of, text):
    run, _ = new_run("damaged-parcel")
    mlflow_of(False)
    file = run.folder / "outbox" / "shareverse.x.evaluation.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    said = deliver(run, {})
    assert str(file) in said
    assert "remove it" in said
    assert "\n" not in said
