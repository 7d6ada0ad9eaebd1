"""The linear codec has CogVideoX's geometry; what it keeps is what a linear basis can keep."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import AutoencoderKLCogVideoX

from model.codec import (
    CodecError,
    LinearCodec,
    VaeCodec,
    fitted_codec_folder,
    in_dtype,
    join_blocks,
    load_codec,
    scale_chroma,
    split_into_blocks,
)
from model.presets import CodecConfig


def clips(count=6, frames=9, seed=0):
    """Smooth moving gradients in [-1, 1], [N, 3, T, 16, 24]."""
    generator = torch.Generator().manual_seed(seed)
    phase = 6 * torch.rand(count, 3, 1, 1, 1, generator=generator)
    t, y, x = torch.meshgrid(torch.arange(frames) / 8, torch.arange(16) / 16, torch.arange(24) / 24, indexing="ij")
    return torch.sin(phase + t + 3 * x + 2 * y)


def test_blocks_are_undone():
    video = torch.randn(2, 3, 9, 16, 24, generator=torch.Generator().manual_seed(0))
    first, rest = split_into_blocks(video)
    assert first.shape == (2, 1, 2, 3, 192)
    assert rest.shape == (2, 2, 2, 3, 768)
    assert torch.equal(join_blocks(first, rest), video)


def test_shapes_scale_and_reconstruction():
    codec = LinearCodec.fit([clips()], 16)
    mean, logvar = codec.encode(clips(seed=1))
    assert mean.shape == logvar.shape == (6, 3, 16, 2, 3)
    assert 0.3 < float(mean.square().mean()) < 3
    error = (codec.decode(mean) - clips(seed=1)).square().mean()
    assert error < 1e-3 * clips(seed=1).square().mean()


def test_the_basis_is_orthonormal_so_latent_error_is_pixel_error():
    codec = LinearCodec.fit([clips()], 16)
    torch.testing.assert_close(codec.rest_basis.T @ codec.rest_basis, torch.eye(16), atol=1e-5, rtol=0)


def test_time_is_causal_the_first_frame_depends_on_itself_alone():
    codec = LinearCodec.fit([clips()], 16)
    other = clips().clone()
    other[:, :, 1:] = 0
    assert torch.equal(codec.encode(other)[0][:, 0], codec.encode(clips())[0][:, 0])
    assert torch.equal(codec.encode(clips()[:, :, :1])[0], codec.encode(clips())[0][:, :1])


def test_fitted_once_saved_and_loaded_it_is_the_same(tmp_path):
    codec = LinearCodec.fit([clips()], 16)
    codec.save_pretrained(tmp_path / "codec")
    again = load_codec(CodecConfig(codec="linear", codec_path="", latent_channels=16), tmp_path)
    assert torch.equal(again.encode(clips())[0], codec.encode(clips())[0])


def test_a_codec_fitted_before_must_be_the_one_that_the_preset_describes(tmp_path):
    LinearCodec.fit([clips()], 16, 2.0).save_pretrained(tmp_path / "codec")
    taken = CodecConfig(
        codec="linear", codec_path="", latent_channels=16, chroma_weight=2.0, fitted_codec=str(tmp_path)
    )
    assert fitted_codec_folder(taken) == tmp_path / "codec"
    for changes, sentence in (
        ({"latent_channels": 8}, "has latent_channels 16 and this preset 8: set latent_channels to 16"),
        ({"chroma_weight": 3.0}, "has chroma_weight 2.0 and this preset 3.0"),
        ({"fitted_codec": str(tmp_path / "codec")}, "cannot be loaded"),
    ):
        with pytest.raises(CodecError, match=sentence):
            fitted_codec_folder(taken.model_copy(update=changes))
    with pytest.raises(ValueError, match="only the linear codec is fitted"):
        CodecConfig(fitted_codec="somewhere")


def test_weighing_chroma_leaves_grey_alone_and_is_undone():
    grey, video = clips()[:, :1].expand(-1, 3, -1, -1, -1), clips()
    torch.testing.assert_close(scale_chroma(grey, 3.0), grey)
    torch.testing.assert_close(scale_chroma(scale_chroma(video, 3.0), 1 / 3.0), video)
    assert scale_chroma(video, 1.0) is video


def test_a_codec_that_weighs_chroma_more_keeps_a_faint_colour_that_another_drops():
    """Strong patterns of brightness, and the first block's colour, which is weaker than any of them."""
    generator = torch.Generator().manual_seed(0)
    patterns = torch.randn(4, 9, 16, 24, generator=generator)
    video = (
        (torch.randn(200, 4, generator=generator) @ patterns.flatten(1)).view(200, 1, 9, 16, 24).repeat(1, 3, 1, 1, 1)
    )
    red = 1 - 2 * torch.randint(0, 2, (200, 1, 1, 1), generator=generator)
    video[:, 0, :, :8, :8] += 0.25 * red
    video *= 0.1

    def error_of_red(weight):
        codec = LinearCodec.fit([video], 4, weight)
        again = codec.decode(codec.encode(video)[0])
        tint = [(v[:, 0] - v[:, 1:].mean(1))[:, :, :8, :8] for v in (again, video)]
        return float((tint[0] - tint[1]).square().mean() / tint[1].square().mean())

    assert error_of_red(1.0) > 0.5
    assert error_of_red(10.0) < 0.2


def test_with_weighted_chroma_a_latent_error_is_an_error_of_the_weighted_pixels():
    codec = LinearCodec.fit([clips()], 16, 3.0)
    latents = codec.encode(clips(seed=1))[0]
    moved = latents + 1e-3 * torch.randn(latents.shape, generator=torch.Generator().manual_seed(1))
    change = scale_chroma(codec.decode(moved) - codec.decode(latents), 3.0)
    expected = (codec.scale * (moved - latents)).square().sum()
    torch.testing.assert_close(change.square().sum(), expected, rtol=0.05, atol=0)  # decoding clips a few pixels


def test_the_weight_of_chroma_is_saved_and_a_codec_saved_without_one_has_one(tmp_path):
    config = CodecConfig(codec="linear", codec_path="", latent_channels=16)
    for weight in (1.0, 3.0):
        codec = LinearCodec.fit([clips()], 16, weight)
        codec.save_pretrained(tmp_path / "codec")
        again = load_codec(config, tmp_path)
        assert again.config.chroma_weight == weight
        assert torch.equal(again.decode(again.encode(clips())[0]), codec.decode(codec.encode(clips())[0]))
    LinearCodec.fit([clips()], 16).save_pretrained(tmp_path / "codec")
    saved = tmp_path / "codec" / "config.json"
    record = json.loads(saved.read_text())
    del record["chroma_weight"]
    saved.write_text(json.dumps(record))
    assert load_codec(config, tmp_path).config.chroma_weight == 1.0


def test_frame_counts_that_the_vae_would_decode_wrongly_are_refused():
    with pytest.raises(CodecError, match="13 frames"):
        LinearCodec.fit([clips()], 16).encode(torch.zeros(1, 3, 13, 16, 24))


def test_nothing_to_fit_on_and_nothing_to_load_are_sentences(tmp_path):
    with pytest.raises(CodecError, match="no training clips"):
        LinearCodec.fit([], 16)
    with pytest.raises(CodecError, match="encode the data set first"):
        load_codec(CodecConfig(codec="linear"), tmp_path)
    with pytest.raises(CodecError, match="set codec_path"):
        load_codec(CodecConfig(codec_path=str(tmp_path)))


def vae(**config):
    """CogVideoX's VAE, small."""
    torch.manual_seed(0)
    stages = {"down_block_types": ("CogVideoXDownBlock3D",) * 4, "up_block_types": ("CogVideoXUpBlock3D",) * 4}
    sizes = {"block_out_channels": (8, 8, 16, 16), "layers_per_block": 1, "norm_num_groups": 4, "latent_channels": 4}
    return AutoencoderKLCogVideoX(**stages, **sizes, scaling_factor=0.7, **config).eval()


@torch.no_grad()
def test_the_vae_behind_the_same_interface_scales_once():
    model, video = vae(), clips(count=1)
    codec = VaeCodec(model)
    mean, logvar = codec.encode(video)
    posterior = model.encode(video).latent_dist
    assert mean.shape == (1, 3, 4, 2, 3)
    torch.testing.assert_close(mean, 0.7 * posterior.mean.transpose(1, 2))  # trap 17: scaled twice or never
    torch.testing.assert_close(logvar.exp().sqrt(), 0.7 * posterior.std.transpose(1, 2))
    plain = model.decode(posterior.mean).sample.clamp(-1, 1)
    assert plain.shape == video.shape
    torch.testing.assert_close(codec.decode(mean), plain)


@torch.no_grad()
def test_the_vae_decodes_video_by_video_in_any_precision():
    codec, latents = VaeCodec(vae()), torch.randn(2, 3, 4, 2, 3, generator=torch.Generator().manual_seed(0))
    together = codec.decode(latents)
    assert torch.equal(together, torch.cat([codec.decode(one) for one in latents.split(1)]))
    half = in_dtype(codec, torch.bfloat16)
    assert (half.vae.dtype, codec.vae.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(half.decode(latents), together, rtol=0, atol=0.1)
    linear = LinearCodec(4)
    assert in_dtype(codec, torch.float32) is codec
    assert in_dtype(linear, torch.bfloat16) is linear


@torch.no_grad()
def test_the_vae_is_loaded_from_a_pipeline_or_from_its_own_folder(tmp_path):
    vae().save_pretrained(tmp_path / "vae")
    picture = clips(count=1)[:, :, :1]
    found = [load_codec(CodecConfig(codec_path=str(path))).encode(picture)[0] for path in (tmp_path, tmp_path / "vae")]
    assert torch.equal(*found)


def test_the_vae_refuses_frame_counts_it_would_decode_wrongly():
    with pytest.raises(CodecError, match="13 frames"):
        VaeCodec(vae()).encode(torch.zeros(1, 3, 13, 16, 24))
