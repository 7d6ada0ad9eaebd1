"""Arms train side by side, each in its place."""

from __future__ import annotations

import pytest
import torch

from infra.deepspeed_config import DeepSpeedConfigError
from model.presets import Preset
from tasks.benchmark import training
from tasks.benchmark.training import LIMITS, SILENCE_S, ArmTrainer, arm_needs, processes_of, train_on
from tasks.runs.errors import RunError
from tasks.runs.run import Run
from tasks.training.group import ProcessGroup
from tests.fake_ray import HANGS, FakeRay, on_this_clock

BENCH, SINGLE_GPU = Preset.load("bench"), Preset.load("single-gpu")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SHAREVERSE_HOME", str(tmp_path))


@pytest.fixture
def have_gpus(monkeypatch):
    return lambda count: monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def run_of(preset: Preset, seed: int = 0, **changes: int) -> Run:
    return Run("toy", "0" * 64, preset.replace(seed=seed, **changes))


@pytest.mark.parametrize(
    ("gpus", "processes", "asked", "wanted"),
    [
        ([0], 1, None, 0),
        ([0], 1, 3, 0),
        ([1], 1, None, 1),
        ([1], 1, 3, 1 / 3),
        ([2], 1, None, 1),
        ([1, 1], 1, 3, 1 / 2),
        ([8], 8, None, 8),
        ([8, 8], 8, 2, 8),
        ([8], 8, 2, 0),
    ],
)
def test_arms_of_one_process_get_a_gpu_each(gpus, processes, asked, wanted):
    assert arm_needs([{"CPU": 4, "GPU": count} for count in gpus], processes, asked).gpus == wanted


@pytest.mark.parametrize(
    ("gpus", "shares", "wanted"), [(0, 4, 1), (1, 4, 1), (4, 4, 4), (8, 4, 4), (3, 4, 1), (8, 1, 1)]
)
def test_processes_are_as_many_gpus_as_divide_the_micro_batches(have_gpus, gpus, shares, wanted):
    have_gpus(gpus)
    assert processes_of(run_of(SINGLE_GPU, micro_batch_size=SINGLE_GPU.training.batch_size // shares)) == wanted


class Arms:
    """Two arms on a fake Ray; `work` and `reports` answer as the test says."""

    def __init__(self, monkeypatch, folder, arms: int = 2) -> None:
        self.runs = [run_of(BENCH, seed) for seed in range(arms)]
        self.work = lambda name, run: ("done", "")
        self.ray = FakeRay(on_this_clock(monkeypatch), lambda name: ("ready", ""), lambda *given: self.work(*given), 2)
        self.folder = folder
        self.rows: list[dict] = []
        self.told: list[tuple] = []

    def train(self, side_by_side: int | None = None) -> list[str]:
        return train_on(
            self.ray, self.runs, self.folder, lambda run: self.rows.extend, lambda *told: self.told.append(told),
            side_by_side, 2,
        )  # fmt: skip


@pytest.fixture
def arms(monkeypatch, tmp_path):
    return Arms(monkeypatch, tmp_path, 4)


@pytest.mark.parametrize(("asked", "together"), [(None, 2), (1, 1), (2, 2)])
def test_as_many_as_asked_for_train_side_by_side(arms, asked, together):
    assert arms.train(asked) == []
    assert arms.ray.count("made") == together
    assert arms.ray.count("work") == 4
    assert arms.told[-1][:2] == (4 * BENCH.training.train_steps, 4 * BENCH.training.train_steps)


def test_a_training_that_fails_does_not_end_the_others(arms):
    arms.work = lambda name, run: ("fault", "out of memory.") if run.preset.training.seed == 0 else ("done", "")
    assert arms.train(1) == ["out of memory."]
    assert arms.ray.count("work") == 4  # none is tried twice


def test_an_arm_whose_trainer_dies_goes_on_in_another(arms, caplog):
    died = iter([FakeRay.exceptions.RayActorError("died")])
    arms.work = lambda name, run: next(died, ("done", ""))
    assert arms.train(1) == []
    assert arms.ray.count("work") == 5
    assert "the process of trainer0 died." in caplog.text


def test_rows_and_steps_arrive_while_an_arm_trains_and_when_it_fails(arms):
    asked = iter(range(1, 4))
    arms.runs = arms.runs[:1]
    arms.ray.on_reports = lambda name: [[{"step": step}, {"step": step}], step] if (step := next(asked, 0)) else []
    arms.work = lambda name, run: lambda: ("fault", "NaN.") if arms.ray.clock.now > 5 else HANGS
    assert arms.train() == ["NaN."]
    assert [row["step"] for row in arms.rows] == [1, 1, 2, 2, 3, 3]
    assert [done for done, *_ in arms.told] == [1, 2, 3]


def test_an_arm_that_says_nothing_for_too_long_is_given_up(arms):
    arms.work = lambda name, run: HANGS if run.preset.training.seed == 1 else ("done", "")
    (reason,) = arms.train()
    assert f"not finished after {SILENCE_S:.0f} s" in reason
    assert arms.ray.clock.now < LIMITS.actors_lost * (SILENCE_S + 60)


@pytest.mark.parametrize("error", [RunError("out of memory."), DeepSpeedConfigError("out of memory.")])
def test_a_trainer_reports_and_says_why_it_failed(monkeypatch, tmp_path, error):
    def train(run, latents_dir, processes, on_progress, on_rows, *, threads):
        on_rows([{"step": 1}])
        on_progress(1, 2, "")
        raise error

    monkeypatch.setattr(training, "train", train)
    monkeypatch.setattr(training, "assigned_cores", lambda: 1)
    trainer = ArmTrainer(str(tmp_path), 1)
    assert trainer.work(run_of(BENCH)) == ("fault", "out of memory.")
    assert trainer.reports() == [[{"step": 1}], 1]
    assert trainer.reports() == []


def test_an_environment_names_the_rank(monkeypatch, tmp_path):
    assert ProcessGroup(run_of(BENCH), tmp_path, 1).environment(0)["LOCAL_RANK"] == "0"
