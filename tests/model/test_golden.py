"""The model's mathematics against references written out by hand, and numbers computed apart from it."""

from __future__ import annotations

import math
import types

import numpy as np
import pytest
import torch

from model.codec import VaeCodec
from model.objective import Batch, noise_schedule, training_loss
from model.pipeline import ShareVersePipeline
from model.presets import ObjectiveConfig
from model.raymap import build_raymaps
from model.transformer import ShareVerseTransformer3DModel

HEADS, HEAD_DIM, FRAMES, ROWS, COLUMNS = 2, 16, 3, 2, 3
"""Of the model under test: latents of 4 x 6, patches of 2."""


def random_model(**switches) -> ShareVerseTransformer3DModel:
    """Return a small model whose every weight is random, projectors and raymap encoders too."""
    model = ShareVerseTransformer3DModel(
        num_attention_heads=HEADS, attention_head_dim=HEAD_DIM, in_channels=8, out_channels=4, time_embed_dim=16,
        text_embed_dim=12, num_layers=2, sample_width=6, sample_height=4, sample_frames=9, max_text_seq_length=5,
        use_rotary_positional_embeddings=True, **switches,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.double().eval()


def rotate(vectors: np.ndarray, position: tuple[int, int, int]) -> np.ndarray:
    """Apply rotary positions (t, row, column) to [HEAD_DIM]: a quarter for time, three eighths for each of space."""
    rotated = np.empty_like(vectors)
    start = 0
    for place, size in zip(position, (HEAD_DIM // 4, 3 * HEAD_DIM // 8, 3 * HEAD_DIM // 8), strict=True):
        for pair in range(size // 2):
            angle = place * 10_000 ** (-2 * pair / size)
            a, b = vectors[start + 2 * pair], vectors[start + 2 * pair + 1]
            rotated[start + 2 * pair] = a * math.cos(angle) - b * math.sin(angle)
            rotated[start + 2 * pair + 1] = b * math.cos(angle) + a * math.sin(angle)
        start += size
    return rotated


def layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(x.var(-1, keepdims=True) + eps) * weight + bias


def cross_agent_by_hand(weights: dict[str, np.ndarray], tokens: np.ndarray, temb: np.ndarray, cross_rope: str):
    """Paper, section 4.3, in plain products: AdaLN, attention over all agents' tokens with rotary positions, gate,
    projector. tokens [A, F*h*w, D], temb [A, T] -> what is added to the tokens."""

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    agents, count, dim = tokens.shape
    shift, scale, gate, *_ = np.split(linear("norm1.linear", temb / (1 + np.exp(-temb))), 6, axis=-1)
    normed = layer_norm(tokens, weights["norm1.norm.weight"], weights["norm1.norm.bias"], 1e-5)
    together = (normed * (1 + scale[:, None]) + shift[:, None]).reshape(agents * count, dim)
    where = [
        (agent * FRAMES + frame if cross_rope == "doubled" else frame, row, column)
        for agent in range(agents) for frame in range(FRAMES) for row in range(ROWS) for column in range(COLUMNS)
    ]  # fmt: skip
    heads = []
    for head in range(HEADS):
        part = slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)
        q, k, v = (linear(f"attn1.to_{name}", together)[:, part] for name in "qkv")
        q = layer_norm(q, weights["attn1.norm_q.weight"], weights["attn1.norm_q.bias"], 1e-6)
        k = layer_norm(k, weights["attn1.norm_k.weight"], weights["attn1.norm_k.bias"], 1e-6)
        q = np.stack([rotate(x, at) for x, at in zip(q, where, strict=True)])
        k = np.stack([rotate(x, at) for x, at in zip(k, where, strict=True)])
        scores = np.exp(q @ k.T / math.sqrt(HEAD_DIM))
        heads.append(scores / scores.sum(-1, keepdims=True) @ v)
    attended = linear("attn1.to_out.0", np.concatenate(heads, -1)).reshape(agents, count, dim)
    return linear("projector", gate[:, None] * attended)


@pytest.mark.parametrize("agents", [2, 3])
@pytest.mark.parametrize("cross_rope", ["doubled", "shared"])
@torch.no_grad()
def test_the_cross_agent_block_is_what_the_paper_writes(cross_rope, agents):
    model = random_model(cross_rope=cross_rope)
    block = model.cross_agent_blocks["0"]
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(agents, FRAMES * ROWS * COLUMNS, HEADS * HEAD_DIM, generator=generator, dtype=torch.float64)
    temb = torch.randn(agents, 16, generator=generator, dtype=torch.float64)
    rotary = model.cross_agent_rotary_tables(agents, FRAMES, 2 * ROWS, 2 * COLUMNS, tokens.device)
    weights = {name: value.numpy() for name, value in block.state_dict().items()}
    ours = block(tokens, temb, rotary, agents)
    torch.testing.assert_close(
        ours, torch.from_numpy(cross_agent_by_hand(weights, tokens.numpy(), temb.numpy(), cross_rope)),
        rtol=1e-5, atol=1e-5,
    )  # fmt: skip
    assert float(ours.abs().max()) > 0.1


@torch.no_grad()
def test_each_pair_of_a_batch_is_predicted_at_its_own_timestep():
    model = random_model()
    generator = torch.Generator().manual_seed(2)
    latents = torch.randn(3, 2, FRAMES, 8, 4, 6, generator=generator, dtype=torch.float64)
    raymaps = torch.randn(3, 2, FRAMES, 24, 4, 6, generator=generator, dtype=torch.float64)
    text = torch.randn(3, 5, 12, generator=generator, dtype=torch.float64)
    timesteps = torch.tensor([999, 17, 400])
    together = model(latents, text, timesteps, raymaps=raymaps).sample
    for pair in range(3):
        one = slice(pair, pair + 1)
        alone = model(latents[one], text[one], timesteps[one], raymaps=raymaps[one]).sample
        torch.testing.assert_close(together[one], alone)


def test_the_loss_noises_each_pair_to_its_own_timestep():
    schedule = noise_schedule(ObjectiveConfig())
    generator = torch.Generator().manual_seed(3)
    clip, noise = (torch.randn(2, 2, FRAMES, 4, 2, 2, generator=generator) for _ in range(2))
    timesteps = torch.tensor([999, 100])
    seen = {}

    def model(inputs, text, timestep, raymaps):
        seen.update(inputs=inputs, timestep=timestep)
        return types.SimpleNamespace(sample=torch.zeros_like(clip))

    raymaps, text = torch.zeros(2, 2, FRAMES, 24, 2, 2), torch.zeros(1, 1, 8)
    loss = training_loss(model, schedule, Batch(clip, clip[:, :, :1], raymaps, timesteps, noise), text, torch.float32)
    kept = schedule.alphas_cumprod[timesteps].float().sqrt().view(2, 1, 1, 1, 1, 1)
    lost = (1 - schedule.alphas_cumprod[timesteps]).float().sqrt().view(2, 1, 1, 1, 1, 1)
    torch.testing.assert_close(seen["inputs"][:, :, :, :4], kept * clip + lost * noise)
    assert seen["timestep"].tolist() == [999, 100]
    torch.testing.assert_close(loss.per_pair, (kept * noise - lost * clip).square().flatten(1).mean(1))


GOLDEN_ALPHAS = {0: 0.99915, 100: 0.886761, 250: 0.652457, 500: 0.241019, 750: 0.032799, 900: 0.00296, 999: 0.0}
"""alphas_cumprod of CogVideoX-5B-I2V's scheduler_config.json: scaled linear betas from 0.00085 to 0.012,
snr_shift_scale 1.0, zero terminal SNR. From `test_the_golden_schedule_is_computed_apart`."""


def schedule_by_hand() -> list[float]:
    """Betas to alphas_cumprod, shifted and rescaled to a last value of zero, in plain Python."""
    alphas, product = [], 1.0
    for step in range(1000):
        beta = (0.00085**0.5 + (0.012**0.5 - 0.00085**0.5) * step / 999) ** 2
        product *= 1 - beta
        alphas.append(product)
    roots = [math.sqrt(value) for value in alphas]  # snr_shift_scale 1 leaves them as they are
    return [((root - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2 for root in roots]


def test_the_golden_schedule_is_computed_apart():
    ours = schedule_by_hand()
    assert {step: round(ours[step], 6) for step in GOLDEN_ALPHAS} == GOLDEN_ALPHAS


def test_the_schedule_is_cogvideox_5bs():
    found = noise_schedule(ObjectiveConfig()).alphas_cumprod
    for step, value in GOLDEN_ALPHAS.items():
        assert float(found[step]) == pytest.approx(value, abs=2e-6)


class TwoDeviations(torch.nn.Module):
    """Stands for a VAE whose posterior has mean 3 and standard deviation 2."""

    def __init__(self) -> None:
        super().__init__()
        self.config = types.SimpleNamespace(scaling_factor=0.7, invert_scale_latents=False)
        self.dtype = torch.float32

    def enable_tiling(self) -> None:
        pass

    def encode(self, video):
        from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

        n, _, frames, height, width = video.shape
        shape = (n, 4, (frames - 1) // 4 + 1, height // 8, width // 8)
        moments = torch.cat([torch.full(shape, 3.0), torch.full(shape, 2 * math.log(2))], 1)
        return types.SimpleNamespace(latent_dist=DiagonalGaussianDistribution(moments))


def test_the_vaes_posterior_is_scaled_with_its_latents():
    mean, logvar = VaeCodec(TwoDeviations()).encode(torch.zeros(1, 3, 9, 16, 16))
    torch.testing.assert_close(mean, torch.full((1, 3, 4, 2, 2), 0.7 * 3))
    torch.testing.assert_close(torch.exp(0.5 * logvar), torch.full((1, 3, 4, 2, 2), 0.7 * 2))


class Counting(ShareVersePipeline):
    """Generates windows of frames whose every pixel is one more than the frame before; keeps what it was given."""

    def __init__(self, **video) -> None:
        super().__init__(None, None, None, None, **video)
        self.given: list[tuple[torch.Tensor, torch.Tensor]] = []

    def denoise(self, first_frames, raymaps, **options):
        self.given.append((first_frames, raymaps))
        return first_frames[:, :, None]

    def decode(self, latents):
        return latents.transpose(2, 3) + torch.arange(5.0).view(1, 1, 1, 5, 1, 1)


def test_a_rollout_goes_on_from_the_last_frame_with_the_cameras_of_its_window():
    generator = torch.Generator().manual_seed(4)
    K = torch.tensor([[48.0, 0, 48], [0, 48, 32], [0, 0, 1]], dtype=torch.float64).expand(1, 2, 4, 3, 3)
    c2w = torch.eye(4, dtype=torch.float64).repeat(1, 2, 4, 13, 1, 1)
    c2w[..., :3, 3] = torch.randn(1, 2, 4, 13, 3, generator=generator, dtype=torch.float64)
    size = {"height": 64, "width": 96}
    pipeline = Counting(frames=5, **size)
    videos = pipeline.rollout(torch.zeros(1, 2, 3, 8, 8), K, c2w).videos
    assert videos[0, 0, 0, :, 0, 0].tolist() == list(range(13))
    assert [float(first.max()) for first, _ in pipeline.given] == [0, 4, 8]
    for window, (_, rays) in enumerate(pipeline.given):
        assert torch.equal(rays, build_raymaps(K, c2w[:, :, :, 4 * window : 4 * window + 5], **size))
