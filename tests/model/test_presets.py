"""Presets are checked when they are read, with one sentence for what does not fit."""

from __future__ import annotations

import pytest

from model.build import build_transformer, text_embedding
from model.presets import FOLDER, Preset, PresetError


@pytest.mark.parametrize("name", sorted(file.stem for file in FOLDER.glob("*.toml")))
def test_every_preset_loads_and_survives_json(name):
    preset = Preset.load(name)
    assert Preset.from_dict(preset.to_dict()) == preset


def test_paper_is_the_papers():
    flat = Preset.load("paper").flat()
    assert (flat["frames"], flat["height"], flat["width"]) == (49, 480, 720)
    assert (flat["learning_rate"], flat["batch_size"], flat["train_steps"]) == (2e-5, 16, 10_000)
    assert Preset.load("paper").latent_shape == (13, 16, 60, 90)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"frames": 13}, "frames is 13.*8k\\+1"),
        ({"height": 40}, "height is 40.*multiple of 16"),
        ({"cross_agent": "maybe"}, "cross_agent is 'maybe'.*on, within, off"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"learning_rate": "fast"}, "takes a float"),
        ({"train_steps": 0}, "train_steps is 0"),
        ({"micro_batch_size": 3}, "no multiple of micro_batch_size 3"),
        ({"lr": 1.0}, "no field 'lr'.*learning_rate"),
    ],
)
def test_what_cannot_work_is_named(changes, sentence):
    with pytest.raises(PresetError, match=sentence):
        Preset.load("demo").replace(**changes)


def test_an_unknown_preset_lists_the_known():
    with pytest.raises(PresetError, match=r"'demos'.*demo, paper"):
        Preset.load("demos")


def test_tiny_builds_the_same_model_from_the_same_seed():
    preset = Preset.load("tiny")
    first, again = (build_transformer(preset).state_dict() for _ in range(2))
    other = build_transformer(preset.replace(seed=1)).state_dict()
    assert all((first[name] == again[name]).all() for name in first)
    assert any((first[name] != other[name]).any() for name in first)
    assert text_embedding(preset).shape == (1, 1, 8)


def test_a_missing_text_embedding_says_how_to_make_it():
    with pytest.raises(PresetError, match=r"empty prompt.*PAPER_SCALE"):
        text_embedding(Preset.load("paper"))
