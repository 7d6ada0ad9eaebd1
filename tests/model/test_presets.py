"""Presets are checked when they are read, with one sentence for what does not fit."""

from __future__ import annotations

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel

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
        ({"guidance_scale": 6.0}, "guidance_scale is 6.0: only 1"),
        ({"chroma_weight": 0.0}, "chroma_weight is 0.0: give a number above 0"),
        ({"codec": "cogvideox", "chroma_weight": 2.0}, "chroma_weight is 2.0: only the linear codec weighs chroma"),
        ({"attention_head_dim": 24}, "attention_head_dim is 24.*multiple of 16"),
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


def preset_with_base(folder, **sizes):
    """The tiny preset on a saved CogVideoX of fitting sizes, but for `sizes`."""
    fitting = {
        "num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 16, "out_channels": 8, "num_layers": 2,
        "time_embed_dim": 16, "text_embed_dim": 8, "max_text_seq_length": 1, "patch_size": 1, "sample_height": 4,
        "sample_width": 6, "sample_frames": 9, "use_rotary_positional_embeddings": True,
    }  # fmt: skip
    torch.manual_seed(0)
    CogVideoXTransformer3DModel(**(fitting | sizes)).save_pretrained(folder / "transformer")
    return Preset.load("tiny").replace(base_model=str(folder))


def test_a_base_that_fits_is_built_upon(tmp_path):
    model = build_transformer(preset_with_base(tmp_path))
    base = CogVideoXTransformer3DModel.from_pretrained(tmp_path, subfolder="transformer")
    assert torch.equal(model.proj_out.weight, base.proj_out.weight)
    assert float(model.raymap_encoders["0"].proj.weight.detach().abs().max()) == 0


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        ({"sample_width": 8}, "has sample_width 8 and this preset's video and codec need 6"),
        ({"in_channels": 8}, "has in_channels 8 .* need 16"),
        ({"patch_size_t": 1, "sample_frames": 9}, r"is a CogVideoX 1\.5"),
    ],
)
def test_a_base_that_does_not_fit_is_named(tmp_path, sizes, sentence):
    with pytest.raises(PresetError, match=sentence):
        build_transformer(preset_with_base(tmp_path, **sizes))


def test_a_base_that_is_not_there_is_named(tmp_path):
    with pytest.raises(PresetError, match="cannot be loaded"):
        build_transformer(Preset.load("tiny").replace(base_model=str(tmp_path)))
