"""The trainer's parts: rates, averages, spool, FLOPs, records, what MLflow misses."""

from __future__ import annotations

import json

import pytest
import torch

from infra.mlflow_tracking import TrackingError
from model import weights
from model.build import build_transformer
from model.presets import Preset
from tasks.encoding.latents import latents_key
from tasks.runs.errors import RunError
from tasks.runs.run import Run, read_run
from tasks.runs.spool import SpoolTail, append_row, read_rows, rewind
from tasks.training import tracking
from tasks.training.checkpoint import remove_old
from tasks.training.ema import WeightAverage
from tasks.training.engine import learning_rate_at
from tasks.training.flops import flops_per_pair
from tasks.training.optimizer import parameter_groups
from tests.tasks.training.conftest import TINY


def test_the_rate_warms_up_and_falls_as_a_cosine():
    rates = [learning_rate_at(step, 1.0, 10, 110, "cosine") for step in (0, 9, 10, 60, 110)]
    assert rates == pytest.approx([0.1, 1.0, 1.0, 0.525, 0.05])
    assert learning_rate_at(100, 2e-5, 10, 110, "constant") == 2e-5


def test_a_field_that_came_later_changes_no_run_that_does_not_use_it():
    """The ids that these had before `chroma_weight` came: run folders and latents are found by them."""
    digest, tiny = "0" * 64, Preset.load("tiny")
    assert Run("d", digest, tiny).run_id == "ad1119c6fc2d"
    assert latents_key(digest, tiny) == "2ab0d41867860a2b"
    other = tiny.replace(chroma_weight=2.0)
    assert Run("d", digest, other).run_id != "ad1119c6fc2d"
    assert latents_key(digest, other) != "2ab0d41867860a2b"


def test_a_run_is_known_by_the_built_in_base_that_it_started_from(new_run, tmp_path, monkeypatch):
    monkeypatch.setitem(weights.BUILT_IN, "shareverse-base", tmp_path)
    with pytest.raises(RunError, match=r"base_model .* holds no SHA256SUMS .*: check the repository out again"):
        new_run("on base", base_model="shareverse-base")
    (tmp_path / "SHA256SUMS").write_text("0" * 64 + "  transformer/config.json\n")
    run, _ = new_run("on base", base_model="shareverse-base")
    (tmp_path / "SHA256SUMS").write_text("1" * 64 + "  transformer/config.json\n")
    later, _ = new_run("on base", base_model="shareverse-base")
    assert later.run_id != run.run_id
    assert read_run(run.run_id) == run


def test_a_run_opened_before_a_field_came_is_read(new_run):
    run, _ = new_run("older")
    record = json.loads((run.folder / "run.json").read_text())
    del record["preset"]["codec"]["chroma_weight"], record["base_sha256"]
    (run.folder / "run.json").write_text(json.dumps(record))
    assert read_run(run.run_id) == run


def test_every_parameter_is_in_one_group():
    model = build_transformer(TINY)
    groups = {group["name"]: group["params"] for group in parameter_groups(model)}
    assert list(groups) == ["base", "raymap", "cross"]
    assert sum(len(group) for group in groups.values()) == len(list(model.parameters()))
    off = build_transformer(TINY.replace(cross_agent="off"))
    assert [group["name"] for group in parameter_groups(off)] == ["base", "raymap"]


def test_the_average_follows_and_gives_the_weights_back(tmp_path):
    model = torch.nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(1.0)
    average = WeightAverage(model, 0.5)
    model.weight.data.fill_(3.0)
    average.update(1)  # decay (1 + 1) / (10 + 1)
    expected = 1.0 * 2 / 11 + 3.0 * 9 / 11
    with average.applied():
        assert model.weight.item() == pytest.approx(expected)
    assert model.weight.item() == 3.0
    average.update(1000)
    assert float(average.means[0]) == pytest.approx(0.5 * expected + 0.5 * 3.0)
    average.save(tmp_path / "ema.safetensors")
    other = WeightAverage(model, 0.5)
    other.load(tmp_path / "ema.safetensors")
    assert torch.equal(other.means[0], average.means[0])


def test_the_spool_is_read_as_it_grows_and_cut_back(tmp_path):
    spool = tmp_path / "metrics.jsonl"
    tail = SpoolTail(spool)
    assert tail.new_rows() == []
    for step in (1, 2):
        append_row(spool, {"step": step, "time_s": 0.0, "train/loss": 1 / step})
    assert [row["step"] for row in tail.new_rows()] == [1, 2]
    with open(spool, "a") as file:
        file.write('{"step": 3, "ti')
    assert tail.new_rows() == []
    with open(spool, "a") as file:
        file.write('me_s": 0.5}\n{"step": 4')
    assert tail.new_rows() == [{"step": 3, "time_s": 0.5}]
    rewind(spool, 2)
    assert [row["step"] for row in read_rows(spool)] == [1, 2]
    assert spool.read_text().endswith("\n")


def test_flops_of_a_pair_are_those_of_its_matrix_products():
    """By hand, for two DiT blocks of width 32 and no cross-agent blocks: 72 tokens an agent and one of text."""
    preset = TINY.replace(cross_agent="off")
    model = build_transformer(preset)
    width, tokens, agents, layers, time = 32, 3 * 4 * 6, 2, 2, 32
    length = tokens + 1
    linear = layers * length * 2 * width * width * (4 + 8)
    attention = layers * 4 * length * length * width
    norms = layers * 2 * 2 * time * 6 * width + 2 * time * 2 * width
    embed = 2 * tokens * 16 * width + 2 * 8 * width
    rays = 2 * tokens * 24 * width
    out = 2 * tokens * width * 8
    times = 2 * width * time + 2 * time * time
    assert flops_per_pair(model, preset) == pytest.approx(
        3 * agents * (linear + attention + norms + embed + rays + out + times)
    )


def test_old_checkpoints_go_oldest_first(tmp_path):
    for step in (2, 4, 6):
        (tmp_path / f"step-{step:06d}").mkdir()
        (tmp_path / f"step-{step:06d}" / "trainer.json").write_text("{}")
    remove_old(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000004", "step-000006"]


class FakeLog:
    """An MLflow run that remembers."""

    def __init__(self):
        self.sent, self.files, self.waiting, self.status = [], [], [], ""

    def metrics(self, rows):
        self.sent += rows

    def artifacts(self, path, folder):
        self.files.append((path.name, folder))

    def close(self, status):
        self.status = status


def test_what_mlflow_missed_while_it_was_down_is_sent_later(new_run, monkeypatch):
    run, _ = new_run("tracked")
    answers = [TrackingError("MLflow is down."), FakeLog()]

    def open_log(run, tags):
        answer = answers.pop(0)
        if isinstance(answer, TrackingError):
            raise answer
        return answer

    monkeypatch.setattr(tracking, "open_log", open_log)
    log = tracking.TrainingLog(run, {})
    log.rows([{"step": 1, "time_s": 0.0}])
    log.rows([{"step": 2, "time_s": 0.0, "sample": "samples/step-000002.png"}])
    assert len(answers) == 1  # it waits before it tries again
    assert log.end("FAILED") == ""
    assert [row["step"] for row in log.log.sent] == [1, 2]
    assert log.log.files == [("step-000002.png", "samples")]
    assert log.log.status == "FAILED"


def test_what_mlflow_never_got_is_told(new_run, monkeypatch):
    run, _ = new_run("untracked")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    log = tracking.TrainingLog(run, {})
    log.rows([{"step": 1, "time_s": 0.0}])
    assert "MLFLOW_TRACKING_URI is not set" in log.end()
    assert str(run.folder) in log.end()


@pytest.fixture
def tasks(monkeypatch):
    """The Prefect tasks as plain functions; what they log."""
    from tasks.training import task

    said: list[str] = []

    class Logger:
        info = warning = staticmethod(said.append)

    monkeypatch.setattr(task, "get_run_logger", lambda: Logger)
    monkeypatch.setattr(task, "create_link_artifact", lambda **values: said.append(values["link"]))
    monkeypatch.setattr(task, "prefect_tags", dict)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return task, said


def test_a_run_opens_without_mlflow_and_says_so(new_run, tasks):
    new_run()
    task, said = tasks
    opened = task.open_run.fn("synthetic", "tiny", {"seed": 11}, "")
    assert (opened["finished"], opened["mlflow_url"]) == (False, "")
    assert "MLFLOW_TRACKING_URI is not set" in said[0]
    assert "trained all the same" in said[0]
    record = json.loads((new_run("other")[0].folder.parent / opened["run_id"] / "run.json").read_text())
    assert Preset.from_dict(record["preset"]) == TINY.replace(seed=11)


def test_a_finished_run_is_not_trained_again(new_run, tasks):
    run, _ = new_run("done")
    (run.folder / "finished.json").write_text(
        '{"metrics": {"eval/psnr": 20.5}, "mlflow_url": "http://127.0.0.1:1/#/r"}'
    )
    task, said = tasks
    opened = task.open_run.fn("synthetic", "tiny", {}, "done")
    assert opened["finished"]
    assert opened["metrics"] == {"eval/psnr": 20.5}
    assert said == [
        f"Run {run.run_id} is done already: nothing to train; http://127.0.0.1:1/#/r",
        "http://127.0.0.1:1/#/r",
    ]
