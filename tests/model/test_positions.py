"""A base with learned positions at another size than its own."""

from __future__ import annotations

import pytest
import torch
from diffusers import CogVideoXImageToVideoPipeline
from safetensors.torch import load_file

from model.base_model import check_base
from model.build import build_transformer
from model.positions import LEARNED, resized_positions
from model.presets import Preset, PresetError
from model.transformer import ShareVerseTransformer3DModel
from tests.cogvideox_folder import write_cogvideox

TINY = Preset.load("tiny")
LARGER = {"sample_height": 8, "sample_width": 12, "sample_frames": 17}
"""A base of 17 frames of 64x96; tiny takes 9 of 32x48."""


@pytest.fixture
def preset(tmp_path):
    return TINY.replace(base_model=str(write_cogvideox(tmp_path / "base", **LARGER)), positions="interpolated")


def output(model):
    torch.manual_seed(2)
    latents, rays = torch.randn(1, 2, 3, 16, 4, 6), torch.randn(1, 2, 3, 24, 4, 6)
    with torch.no_grad():
        return model(latents, torch.randn(1, 1, 8), torch.tensor([500]), raymaps=rays).sample


def stored_positions(folder):
    for file in (folder / "base/transformer").glob("*.safetensors"):
        if LEARNED in (tensors := load_file(file)):
            return tensors[LEARNED]
    raise AssertionError


def test_learned_positions_stay_at_the_bases_own_size(tmp_path, preset):
    with pytest.raises(PresetError, match=r"has sample_height 8 .* need 4: .*positions to interpolated"):
        build_transformer(preset.replace(positions="learned"))
    own = preset.replace(frames=17, height=64, width=96)
    for positions in ("learned", "interpolated"):
        model = build_transformer(own.replace(positions=positions), torch.bfloat16)
        assert torch.equal(model.patch_embed.pos_embedding, stored_positions(tmp_path))


def test_interpolated_positions_lie_where_rotary_ones_do(preset):
    """A table that holds each place's own coordinates is read at the coordinates of diffusers' rotary positions."""
    base, model = check_base(preset), build_transformer(preset)
    places = torch.stack(torch.meshgrid(torch.arange(5.0), torch.arange(8.0), torch.arange(12.0), indexing="ij"), -1)
    table = torch.cat([torch.full((1, 1, 3), 7.0), places.reshape(1, -1, 3)], 1)
    found = resized_positions(table, base.config, model.config)
    rows, columns = torch.arange(4) * 2.0, torch.arange(6) * 2.0
    expected = torch.stack(torch.meshgrid(torch.arange(3.0), rows, columns, indexing="ij"), -1)
    assert torch.equal(found[:, :1], table[:, :1])
    torch.testing.assert_close(found[0, 1:].view(3, 4, 6, 3), expected)


def test_rotary_positions_are_those_of_the_bases_own_pipeline(preset):
    model = build_transformer(preset)

    class Stub:
        vae_scale_factor_spatial, transformer = 8, check_base(preset)

    theirs = CogVideoXImageToVideoPipeline._prepare_rotary_positional_embeddings(Stub(), 32, 48, 3, torch.device("cpu"))
    for ours, their in zip(model.rotary_tables(3, 4, 6, torch.device("cpu")), theirs, strict=True):
        assert torch.equal(ours, their)


@pytest.mark.parametrize("positions", ["interpolated", "dropped"])
def test_a_model_at_another_size_runs_and_comes_back(preset, tmp_path, positions):
    model = build_transformer(preset.replace(positions=positions))
    assert hasattr(model.patch_embed, "pos_embedding") == (positions == "interpolated")
    expected = output(model)
    assert expected.isfinite().all()
    model.save_pretrained(tmp_path / "saved")
    assert torch.equal(output(ShareVerseTransformer3DModel.from_pretrained(tmp_path / "saved")), expected)
    again = TINY.replace(base_model=str(tmp_path / "saved"))  # a base of our own, now of this size
    assert torch.equal(output(build_transformer(again)), expected)


def test_positions_are_not_stretched_in_time(preset):
    longer = preset.replace(frames=25)
    with pytest.raises(PresetError, match=r"frames is 25 and .* for 17, which are not stretched in time: take fewer"):
        build_transformer(longer)
    assert build_transformer(longer.replace(positions="dropped")).config.sample_frames == 25


def test_a_model_from_scratch_has_no_positions_to_change():
    with pytest.raises(PresetError, match="positions is 'dropped' and base_model is empty"):
        TINY.replace(positions="dropped")
