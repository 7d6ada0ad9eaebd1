"""ShareVerse starts as CogVideoX, bit for bit, and then lets agents hear each other."""

from __future__ import annotations

import pytest
import torch
from diffusers import CogVideoXTransformer3DModel

from model.transformer import ShareVerseTransformer3DModel

SIZES = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "in_channels": 8,
    "out_channels": 4,
    "time_embed_dim": 16,
    "text_embed_dim": 12,
    "num_layers": 4,
    "sample_width": 6,
    "sample_height": 4,
    "sample_frames": 9,
    "max_text_seq_length": 5,
    "use_rotary_positional_embeddings": True,
    "use_learned_positional_embeddings": True,
}


def base(dtype=torch.float32, **sizes):
    torch.manual_seed(0)
    model = CogVideoXTransformer3DModel(**(SIZES | sizes))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model.to(dtype).eval()


def inputs(dtype=torch.float32, agents=2):
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, agents, 3, 8, 4, 6, generator=generator).to(dtype)
    text = torch.randn(2, 5, 12, generator=generator).to(dtype)
    return latents, text, torch.tensor([999, 17]), torch.randn(2, agents, 3, 24, 4, 6, generator=generator).to(dtype)


def wake(model):
    """Give projectors and raymap encoders weights that are not zero."""
    torch.manual_seed(2)
    for name, parameter in model.named_parameters():
        if "projector" in name or "raymap_encoders" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("switches", [
    {}, {"cross_agent_mode": "block"}, {"cross_rope": "shared"}, {"cross_agent": "within"}, {"cross_agent": "off"},
])  # fmt: skip
@torch.no_grad()
def test_at_the_start_it_is_cogvideox_for_each_agent(dtype, switches):
    original = base(dtype)
    model = ShareVerseTransformer3DModel.from_base(original, **switches).eval()
    latents, text, timestep, raymaps = inputs(dtype)
    ours = model(latents, text, timestep, raymaps=raymaps).sample
    theirs = original(
        latents.flatten(0, 1),
        text.repeat_interleave(2, 0),
        timestep.repeat_interleave(2),
        image_rotary_emb=model.rotary_tables(3, 4, 6, latents.device),
    ).sample
    assert torch.equal(ours.flatten(0, 1), theirs)


def test_its_rotary_tables_are_those_of_cogvideox_pipeline():
    from diffusers import CogVideoXImageToVideoPipeline

    model = ShareVerseTransformer3DModel.from_base(base())

    class Stub:
        vae_scale_factor_spatial, transformer = 8, model

    theirs = CogVideoXImageToVideoPipeline._prepare_rotary_positional_embeddings(Stub(), 32, 48, 3, torch.device("cpu"))
    for ours, their in zip(model.rotary_tables(3, 4, 6, torch.device("cpu")), theirs, strict=True):
        assert torch.equal(ours, their)


@pytest.mark.parametrize(("switches", "heard"), [
    ({}, True), ({"cross_agent_mode": "block"}, True), ({"cross_rope": "shared"}, True),
    ({"cross_agent": "within"}, False), ({"cross_agent": "off"}, False),
])  # fmt: skip
@torch.no_grad()
def test_agent_1_reaches_agent_0_only_through_cross_agent_attention(switches, heard):
    model = wake(ShareVerseTransformer3DModel.from_base(base(), **switches)).eval()
    latents, text, timestep, raymaps = inputs()
    changed = latents.clone()
    changed[:, 1] += 1
    before, after = (model(x, text, timestep, raymaps=raymaps).sample for x in (latents, changed))
    assert torch.equal(before[:, 0], after[:, 0]) != heard
    assert not torch.equal(before[:, 1], after[:, 1])


@torch.no_grad()
def test_rays_in_the_pairs_axes_reach_only_the_cross_agent_blocks():
    model = wake(ShareVerseTransformer3DModel.from_base(base(), pair_raymaps=True)).eval()
    latents, text, timestep, raymaps = inputs()
    pair = torch.cat([raymaps, raymaps.flip(1)], 3)
    changed = pair.clone()
    changed[:, 1, :, 24:] += 1  # where agent 1 is, for both
    before, after = (model(latents, text, timestep, raymaps=rays).sample for rays in (pair, changed))
    assert not torch.equal(before[:, 0], after[:, 0])
    for block in model.cross_agent_blocks.values():
        block.reset()
    before, after = (model(latents, text, timestep, raymaps=rays).sample for rays in (pair, changed))
    assert torch.equal(before, after)
    with pytest.raises(ValueError, match="do not fit latents"):
        model(latents, text, timestep, raymaps=raymaps)


@torch.no_grad()
def test_cross_agent_blocks_are_copies_of_the_dit_blocks_that_follow():
    model = ShareVerseTransformer3DModel.from_base(base(), cross_agent_mode="block")
    for place, block in model.cross_agent_blocks.items():
        source = dict(model.transformer_blocks[int(place)].named_parameters())
        for name, parameter in block.named_parameters():
            if not name.startswith("projector"):
                assert torch.equal(parameter, source[name])
    assert list(model.cross_agent_blocks) == ["0", "2"]


def gradients(model, checkpointing=False):
    if checkpointing:
        model.enable_gradient_checkpointing()
    model.zero_grad()
    latents, text, timestep, raymaps = inputs()
    model.train()(latents, text, timestep, raymaps=raymaps).sample.square().mean().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def test_at_the_first_step_projectors_learn_and_what_is_behind_them_waits():
    found = gradients(ShareVerseTransformer3DModel.from_base(base()))
    assert found["cross_agent_blocks.0.projector.weight"].abs().max() > 0
    assert found["raymap_encoders.0.proj.weight"].abs().max() > 0
    assert found["cross_agent_blocks.0.attn1.to_q.weight"].abs().max() == 0  # trap 24: zero, not unused


def test_checkpointing_gives_the_same_gradients():
    model = wake(ShareVerseTransformer3DModel.from_base(base()))
    plain = gradients(model)
    for name, gradient in gradients(model, checkpointing=True).items():
        assert torch.equal(gradient, plain[name]), name


def test_saves_and_loads(tmp_path):
    model = wake(ShareVerseTransformer3DModel.from_base(base(), cross_rope="shared"))
    model.save_pretrained(tmp_path)
    again = ShareVerseTransformer3DModel.from_pretrained(tmp_path)
    assert again.config.cross_rope == "shared"
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_cogvideox_1_5_is_refused():
    with pytest.raises(ValueError, match=r"1\.5"):
        ShareVerseTransformer3DModel(**(SIZES | {"patch_size_t": 2}))


def test_other_sizes_than_the_learned_positions_are_refused():
    model = ShareVerseTransformer3DModel.from_base(base())
    latents, text, timestep, raymaps = inputs()
    with pytest.raises(ValueError, match=r"takes latents of \(3, 4, 6\)"):
        model(latents[:, :, :2], text, timestep, raymaps=raymaps[:, :, :2])
    with pytest.raises(ValueError, match="5 text tokens, not 4"):
        model(latents, text[:, :4], timestep, raymaps=raymaps)
    with pytest.raises(ValueError, match="raymaps"):
        model(latents, text, timestep, raymaps=raymaps[:, :1])


@pytest.mark.parametrize(("mode", "total"), [("attention", 6_766_666_560), ("block", 8_551_132_992)])
def test_parameters_at_the_papers_size(mode, total):
    with torch.device("meta"):
        model = ShareVerseTransformer3DModel(
            num_attention_heads=48, in_channels=32, out_channels=16, num_layers=42, cross_agent_mode=mode,
            use_rotary_positional_embeddings=True, use_learned_positional_embeddings=True,
        )  # fmt: skip
    assert sum(parameter.numel() for parameter in model.parameters()) == total


@torch.no_grad()
def test_any_number_of_agents():
    model = wake(ShareVerseTransformer3DModel.from_base(base())).eval()
    latents, text, timestep, raymaps = inputs(agents=3)
    assert model(latents, text, timestep, raymaps=raymaps).sample.shape == (2, 3, 3, 4, 4, 6)
