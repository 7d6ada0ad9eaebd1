"""A base is read tensor by tensor: the same weights as all at once, in a fraction of the memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.base_model import base_class
from model.build import build_transformer
from model.presets import Preset, PresetError
from model.transformer import ShareVerseTransformer3DModel
from model.weights import load_weights
from tests.cogvideox_folder import write_cogvideox

TINY = Preset.load("tiny")
FIXED = {"use_rotary_positional_embeddings": False, "use_learned_positional_embeddings": False}


def all_at_once(preset, dtype):
    """The model as diffusers builds it: the whole base in float32, then a model beside it."""
    folder = Path(preset.transformer.base_model) / "transformer"
    base = load_weights(base_class(folder), folder, low_cpu_mem_usage=False, torch_dtype=torch.float32)
    return ShareVerseTransformer3DModel.from_base(base, **preset.cross_agent_options).to(dtype)


def tensors(model):
    return dict(model.named_parameters()) | dict(model.named_buffers())


def assert_equal(one, other):
    one, other = tensors(one), tensors(other)
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert value.dtype == other[name].dtype
        assert torch.equal(value, other[name]), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sizes", [{}, FIXED])
def test_the_weights_are_those_of_a_base_that_is_loaded_at_once(tmp_path, dtype, sizes):
    preset = TINY.replace(base_model=str(write_cogvideox(tmp_path / "base", **sizes)))
    assert len(list((tmp_path / "base/transformer").glob("*.safetensors"))) > 2
    assert_equal(build_transformer(preset, dtype), all_at_once(preset, dtype))


@pytest.mark.parametrize("cross_agent", ["off", "on"])
def test_a_base_of_our_own_keeps_what_it_has(tmp_path, cross_agent):
    preset = TINY.replace(base_model=str(write_cogvideox(tmp_path / "base")), cross_agent=cross_agent)
    own = build_transformer(preset, torch.bfloat16)
    for parameter in own.parameters():
        parameter.data.normal_()
    own.save_pretrained(tmp_path / "own" / "transformer")
    preset = TINY.replace(base_model=str(tmp_path / "own"))
    assert_equal(build_transformer(preset, torch.bfloat16), all_at_once(preset, torch.bfloat16))


def test_what_the_base_lacks_is_drawn_with_the_seed(tmp_path):
    preset = TINY.replace(base_model=str(write_cogvideox(tmp_path / "base")), cross_rope="shared")
    first, again, other = (build_transformer(preset.replace(seed=seed)).agent_embedding for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_one_process_reads_for_all(tmp_path):
    preset = TINY.replace(base_model=str(write_cogvideox(tmp_path / "base")))
    sent = []
    reader = build_transformer(preset, torch.bfloat16, send=lambda tensor: sent.append(tensor.clone()))
    waiting = iter(sent)
    other = build_transformer(preset, torch.bfloat16, send=lambda target: target.copy_(next(waiting)), reads=False)
    assert_equal(other, reader)
    assert next(waiting, None) is None


def test_values_that_are_not_finite_are_refused(tmp_path):
    preset = TINY.replace(base_model=str(write_cogvideox(tmp_path / "base")))
    file = sorted((tmp_path / "base/transformer").glob("*.safetensors"))[1]
    stored = load_file(file)
    name = next(iter(stored))
    save_file(stored | {name: stored[name] * torch.nan}, file)
    with pytest.raises(PresetError, match=f"holds {name} with values that are not finite; download it again"):
        build_transformer(preset)


def test_a_base_with_other_cross_agent_blocks_is_refused(tmp_path):
    build_transformer(TINY).save_pretrained(tmp_path / "transformer")
    with pytest.raises(PresetError, match=r"has other cross-agent blocks than this preset: .* change the preset"):
        build_transformer(TINY.replace(base_model=str(tmp_path), cross_agent="off"))


def test_a_process_grows_by_the_model_and_little_else(tmp_path):
    sizes = {"num_attention_heads": 16, "attention_head_dim": 64, "time_embed_dim": 512, "num_layers": 3}
    folder = write_cogvideox(tmp_path / "base", shard="50MB", **sizes)
    stored = sum(file.stat().st_size for file in folder.glob("transformer/*.safetensors"))
    preset = TINY.replace(base_model=str(folder), cross_agent="off")
    command = [sys.executable, "-m", "tests.model.peak_of_loading", json.dumps(preset.to_dict())]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    grown, size = map(int, done.stdout.split())
    assert stored > 100e6
    assert size == pytest.approx(stored, rel=0.02)
    assert grown < 1.2 * stored
