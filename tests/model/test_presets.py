"""Presets are checked when they are read, with one sentence for what does not fit."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from infra.storage import canonical_json, sha256_bytes
from model import weights
from model.build import build_transformer, empty_transformer, text_embedding
from model.presets import FOLDER, Preset, PresetError
from model.presets.messages import schema_of
from tests.junk import JUNK, refused_or_within_bounds, toml_of, unbounded

NAMES = sorted(file.stem for file in FOLDER.glob("*.toml"))
TINY = Preset.load("tiny")


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_loads_and_survives_json_and_toml(name, tmp_path):
    preset = Preset.load(name)
    assert Preset.from_dict(json.loads(json.dumps(preset.to_dict()))) == preset
    file = tmp_path / "copy.toml"
    file.write_text(toml_of(preset.to_dict()))
    assert Preset.load(str(file)) == preset


def test_paper_is_the_papers():
    flat = Preset.load("paper").flat()
    assert (flat["frames"], flat["height"], flat["width"]) == (49, 480, 720)
    assert (flat["learning_rate"], flat["batch_size"], flat["train_steps"]) == (2e-5, 16, 10_000)
    assert Preset.load("paper").latent_shape == (13, 16, 60, 90)


@pytest.mark.parametrize(
    ("name", "sha256"),
    [
        ("demo", "eedc5349901f4d0d"),
        ("small", "68634cf7229e3f49"),
        ("bench", "f69392c516b57c4b"),
        ("paper", "bd8826ba2d2ccbfe"),
    ],
)
def test_what_runs_are_known_by_stays(name, sha256):
    """Fields that are added later belong in FIELDS_ADDED_LATER, or earlier runs are not found any more."""
    assert sha256_bytes(canonical_json(Preset.load(name).identity()).encode()).startswith(sha256)


def test_a_later_field_counts_once_it_is_changed():
    assert "chroma_weight" not in TINY.identity()["codec"]
    assert TINY.replace(chroma_weight=3.0).identity()["codec"]["chroma_weight"] == 3.0


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"frames": 13}, r"^frames is 13 in model preset 'demo': it must be 8k\+1"),
        ({"frames": 1}, "frames is 1 .*: give a whole number from 9 to 4097"),
        ({"height": 40}, "height is 40 .*: it must be a multiple of 16"),
        ({"views": "front", "width": 72}, "width is 72 .*: it must be a multiple of 16"),
        ({"cross_agent": "maybe"}, "cross_agent is 'maybe' .*: give one of on, within, off"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0 .*: give a finite number above 0 and at most 1000000000"),
        ({"learning_rate": "fast"}, "learning_rate is 'fast' .*: give a finite number above 0"),
        ({"learning_rate": math.nan}, "learning_rate is nan .*: give a finite number"),
        ({"learning_rate": math.inf}, "learning_rate is inf .*: give a finite number"),
        ({"learning_rate": 10**5000}, "learning_rate is an integer of 16610 bits .*: give a finite number"),
        ({"train_steps": 0}, "train_steps is 0 .*: give a whole number from 1 to"),
        ({"train_steps": 3.0}, "train_steps is 3.0 .*: give a whole number"),
        ({"train_steps": True}, "train_steps is True .*: give a whole number"),
        ({"zero_stage": True}, "zero_stage is True .*: give a whole number from 1 to 3"),
        ({"image_noise": 1}, "image_noise is 1 .*: give true or false"),
        ({"ema_decay": 1.0}, "ema_decay is 1.0 .*: give a finite number from 0 to below 1"),
        ({"latent_channels": 193}, "latent_channels is 193 .*: give a whole number from 1 to 192"),
        ({"micro_batch_size": 3}, "batch_size 4 is no multiple of micro_batch_size 3 in model preset 'demo'"),
        ({"learnin_rate": 1.0}, "model preset 'demo' has no field 'learnin_rate': did you mean learning_rate?"),
        ({"lr": 1.0}, "model preset 'demo' has no field 'lr': its fields are .*learning_rate"),
        ({"guidance_scale": 6.0}, "guidance_scale is 6.0 .*: give 1"),
        ({"chroma_weight": 0.0}, "chroma_weight is 0.0 .*: give a finite number above 0"),
        ({"codec": "cogvideox", "chroma_weight": 2.0}, "chroma_weight is 2.0 .*: only the linear codec weighs chroma"),
        ({"attention_head_dim": 24}, "attention_head_dim is 24 .*: give a multiple of 16"),
        ({"base_model": "x" * 9999}, "^base_model is 'x{40,60}...x{40,60}' .*: give a path or a name of 0 to 4096"),
        (
            {"image_condition": "first"},
            r"^image_condition is 'first' .*: prediction is 'change', .* prediction to x or v\.$",
        ),
        ({"seed": -1, "train_steps": 0}, r"^seed is -1 .*: .*\. \(1 more value does not fit\.\)$"),
    ],
)
def test_what_cannot_work_is_named(changes, sentence):
    with pytest.raises(PresetError, match=sentence):
        Preset.load("demo").replace(**changes)


def test_every_number_and_text_is_bounded_and_every_field_described():
    assert not unbounded(schema_of(Preset))


@given(JUNK)
@settings(max_examples=40, deadline=None)
def test_no_field_takes_what_it_should_not(value):
    for name in TINY.flat():
        refused_or_within_bounds(TINY, name, value)


def test_values_that_fit_are_taken():
    for name, value in TINY.flat().items():
        assert refused_or_within_bounds(TINY, name, value), name


@given(JUNK)
@settings(max_examples=60, deadline=None)
def test_what_is_no_preset_is_refused(values):
    for damaged in (values, {"name": "x", "training": values}, {"name": values}, TINY.to_dict() | {"video": values}):
        with contextlib.suppress(PresetError):
            assert math.isfinite(Preset.from_dict(damaged).training.learning_rate)


@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_file_is_refused_or_still_a_preset(tmp_path, data):
    whole = (FOLDER / "tiny.toml").read_bytes()
    start = data.draw(st.integers(0, len(whole)))
    damaged = whole[:start] + data.draw(st.binary(max_size=4)) + whole[start + data.draw(st.integers(0, 40)) :]
    file = tmp_path / "damaged.toml"
    file.write_bytes(damaged)
    with contextlib.suppress(PresetError):
        assert Preset.load(str(file)).name == "damaged"


@given(st.one_of(JUNK, st.text(), st.text().map("{}.toml".format)))
@settings(max_examples=60, deadline=None)
def test_what_names_no_preset_is_refused(name):
    assume(name not in NAMES)
    with pytest.raises(PresetError, match="there is no model preset"):
        Preset.load(name)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\xff\xfe", "model preset '.*mine.toml' holds no readable TOML .*: mend the file"),
        (b"[training\nseed = 1", "holds no readable TOML"),
        (b"[training]\nseed = " + b"[" * 100_000, "holds no readable TOML"),
        (b"[training]\nseed = " + b"9" * 5000, "holds no readable TOML"),
        (b"", "holds no setting: write at least one"),
        (b"# learning_rate = 1\n", "holds no setting: write at least one"),
        (b"#" * 2**21, "has more than 1048576 bytes: it is no preset"),
        (b"[trainin]\nseed = 1", "has no field 'trainin': did you mean training"),
        (b"[training]\nsed = 1", "training of model preset '.*' has no field 'sed': did you mean seed"),
        (b"seed = 1", r"seed in model preset '.*' stands outside of its section: move it to \[training\]"),
        (b"[training]\nlearning_rate = nan", "learning_rate is nan in model preset '.*mine.toml': give a finite"),
        (b"[training]\nseed = 1979-05-27", "seed is datetime.date.* give a whole number"),
        (b"training = 3", "training is 3 in .*: give a table of fields"),
        (b"name = ''", "name is '' in .*: give text of 1 to 255 characters"),
    ],
)
def test_a_file_that_does_not_fit_says_where(tmp_path, content, sentence):
    file = tmp_path / "mine.toml"
    file.write_bytes(content)
    with pytest.raises(PresetError, match=sentence):
        Preset.load(str(file))


def test_a_folder_is_no_preset(tmp_path):
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(PresetError, match="there is no model preset"):
        Preset.load(str(tmp_path / "folder.toml"))


def test_an_unknown_preset_lists_the_known():
    with pytest.raises(PresetError, match=r"'demos'.*demo, .*paper"):
        Preset.load("demos")


def test_a_stored_preset_says_whose_it_is():
    stored = TINY.to_dict() | {"sampling": {"sampling_steps": -1}}
    with pytest.raises(PresetError, match=r"^sampling_steps is -1 in the preset of runs/abc/run.json: give"):
        Preset.from_dict(stored, "the preset of runs/abc/run.json")


def test_a_preset_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        TINY.training.seed = 3


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


OWN = {"raymap_axes": "own", "prediction": "x", "first_frame": "given"}


def own_base(folder):
    """A saved base of our class that knows its cameras and no other agent, and the tiny preset on top of it."""
    alone = Preset.load("tiny").replace(cross_agent="off", **OWN)
    model = build_transformer(alone)
    with torch.no_grad():
        model.raymap_encoders["0"].proj.weight.fill_(0.5)
    model.save_pretrained(folder / "transformer")
    return Preset.load("tiny").replace(base_model=str(folder), **OWN)


def test_a_base_of_our_own_keeps_its_cameras_and_gets_cross_agent_blocks(tmp_path):
    preset = own_base(tmp_path)
    model = build_transformer(preset)
    assert float(model.raymap_encoders["0"].proj.weight.detach().min()) == 0.5
    assert model.config.pair_raymaps
    assert model.raymap_channels == 48
    assert float(model.pair_raymap_encoders["0"].proj.weight.detach().abs().max()) == 0
    assert float(model.cross_agent_blocks["0"].projector.weight.detach().abs().max()) == 0
    source = model.transformer_blocks[0].attn1.to_q.weight
    assert torch.equal(model.cross_agent_blocks["0"].attn1.to_q.weight, source)
    assert text_embedding(preset).abs().max() == 0  # it learned with an empty text of zeros
    assert {k: tuple(v.shape) for k, v in empty_transformer(preset).state_dict().items()} == {
        k: tuple(v.shape) for k, v in model.state_dict().items()
    }


def test_a_base_with_cross_agent_blocks_is_kept_as_it_is(tmp_path):
    model = build_transformer(own_base(tmp_path))
    with torch.no_grad():
        model.cross_agent_blocks["0"].projector.weight.fill_(0.25)
    model.save_pretrained(tmp_path / "whole")
    again = build_transformer(Preset.load("tiny").replace(base_model=str(tmp_path / "whole"), **OWN))
    assert float(again.cross_agent_blocks["0"].projector.weight.detach().min()) == 0.25


def test_built_in_weights_are_checked(tmp_path, monkeypatch):
    monkeypatch.setitem(weights.BUILT_IN, "built-in", tmp_path)
    with pytest.raises(weights.WeightsError, match="check the repository out again"):
        weights.local_folder("built-in")
    (tmp_path / weights.CHECKSUMS).write_text("")
    with pytest.raises(weights.WeightsError, match="it is empty"):
        weights.local_folder("built-in")
    (tmp_path / "a.bin").write_bytes(b"1")
    (tmp_path / weights.CHECKSUMS).write_text(f"{hashlib.sha256(b'1').hexdigest()}  a.bin\n")
    assert weights.local_folder("built-in") == tmp_path
    (tmp_path / "a.bin").write_bytes(b"2")
    with pytest.raises(weights.WeightsError, match=r"a\.bin is not what SHA256SUMS says"):
        weights.local_folder("built-in")
