"""A model as the session uses it: whole and shorter chunks, what can be loaded, and what cannot."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch

from model.presets import Preset
from tasks.evaluation.errors import EvaluationError
from tasks.play.errors import PlayError
from tasks.play.play import describe, play
from tasks.play.world_model import load_world_model
from tasks.runs.errors import RunError
from tests.tasks.play.conftest import SCENE
from tests.tasks.play.random_model import write_random_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_random_model(tmp_path_factory.mktemp("model") / "tiny", Preset.load("tiny"))


@pytest.fixture
def model(folder):
    return load_world_model(str(folder))


def test_chunks_go_on_from_the_last_frame(model, scenes):
    scene = scenes[SCENE]
    first = model.start(scene.first_pictures, scene.trajectories[:, 0])
    assert (first.shape, first.dtype) == ((2, 32, 48, 3), np.uint8)
    shrunk = scene.first_pictures.reshape(2, 32, 8, 48, 8, 3).mean((2, 4))
    assert np.abs(first - shrunk).max() <= 1
    frames = model.advance(scene.trajectories[:, 1:9])
    assert (frames.shape, frames.dtype) == ((2, 8, 32, 48, 3), np.uint8)
    again = model.advance(scene.trajectories[:, 9:12])
    assert again.shape == (2, 3, 32, 48, 3)
    assert np.array_equal(model.last_poses, scene.trajectories[:, 11])
    ours = ((model.last_frames + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).movedim(1, -1)
    assert np.array_equal(ours, again[:, -1])


def test_a_short_chunk_extends_the_cars_ways(model, scenes, monkeypatch):
    asked = []
    monkeypatch.setattr(
        model.pipeline, "rollout",
        lambda first, K, c2w, **options: asked.append(c2w[0].numpy()) or SimpleNamespace(
            videos=torch.zeros(1, 2, 3, 9, 32, 48)),
    )  # fmt: skip
    poses = np.zeros((2, 4, 6))
    poses[:, :, 0] = [1, 2, 3, 4]
    poses[1, :, 1] = 50
    model.start(scenes[SCENE].first_pictures, np.array([[0.0] * 6, [0, 50, 0, 0, 0, 0]]))
    model.advance(poses[:, 1:3])
    (c2w,) = asked
    assert c2w.shape == (2, 4, 9, 4, 4)
    assert np.allclose(np.diff(c2w[0, 0, :, 0, 3]), [2, *[1] * 7])


def test_what_is_no_number_is_refused(model, scenes, monkeypatch):
    monkeypatch.setattr(
        model.pipeline, "rollout",
        lambda *given, **options: SimpleNamespace(videos=torch.full((1, 2, 3, 9, 32, 48), torch.nan)),
    )  # fmt: skip
    model.start(scenes[SCENE].first_pictures, scenes[SCENE].trajectories[:, 0])
    with pytest.raises(PlayError, match="no numbers"):
        model.advance(scenes[SCENE].trajectories[:, 1:9])


def test_a_model_with_more_steps_is_no_student(folder, tmp_path):
    assert load_world_model(str(folder)).is_student
    ordinary = load_world_model(str(write_random_model(tmp_path / "m", Preset.load("tiny").replace(sampling_steps=20))))
    assert describe(ordinary, 8)["student"] is False
    assert describe(ordinary, 8)["steps"] == 20
    assert load_world_model(str(folder), steps=3).steps == 3


def test_a_model_larger_than_memory_is_one_sentence(folder, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    with pytest.raises(
        PlayError, match=r"the model in .*transformer needs .* GB of memory and 0\.0 GB are free: end other programs"
    ):
        load_world_model(str(folder))


def test_what_is_no_model_is_one_sentence(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("SHAREVERSE_HOME", str(tmp_path))
    for name, error in (("nothing", "is no run's id and no folder"), (str(tmp_path), "holds no diffusion_pytorch"),
                        ("0123456789ab", "there is no run"), ("", "holds no run yet")):  # fmt: skip
        with pytest.raises((PlayError, RunError), match=error) as raised:
            load_world_model(name)
        assert "\n" not in str(raised.value)


def test_damaged_weights_are_one_sentence(tmp_path):
    folder = write_random_model(tmp_path / "tiny", Preset.load("tiny"))
    (file,) = (folder / "transformer").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises((PlayError, EvaluationError), match=r"cannot be (used|read)"):
        load_world_model(str(folder))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scene": "nowhere"}, "there is no scene 'nowhere': the scenes are 1-crossing"),
        ({"steps": -1}, "--steps is -1: give 1 to 1000"),
        ({"chunk": 10**6}, "--chunk is 1000000"),
        ({"port": 70000}, "--port is 70000"),
        ({"model": "nothing"}, "is no run's id and no folder"),
    ],
)
def test_options_that_cannot_be_are_one_sentence(options, message):
    with pytest.raises(PlayError, match=message):
        play(browser=False, **options)
