"""The memory of a pass and of a decoding, counted on the meta device: its tensors have sizes and no memory.

What lives is counted as it is made and dropped, autograd's own tensors and recomputation included. Attention counts as
the fused kernels of GPUs and CPUs keep it (Dao et al., FlashAttention, arXiv 2205.14135): inputs, output and a number
per query. The kernels' scratch memory is not counted.
"""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from infra.deepspeed_config import use_bf16
from model.build import empty_transformer
from model.codec import VaeCodec, empty_vae
from model.objective import Batch, noise_schedule, training_loss
from model.presets import Preset
from model.raymap import RAYMAP_CHANNELS
from model.trainable import choose_trained
from model.transformer import ShareVerseTransformer3DModel

AGENTS = 2
FRAMES_DECODED = 5
"""Latent frames with which decoding is counted: the VAE takes two or three at a time, and keeps some of the last."""
DECODED_COPIES = 3
"""Of one agent's video, while its tiles are put together."""
FEW_PERIODS = 3
"""A period is the DiT blocks from one cross-agent block to the next. Models with more are counted with two and three of
them; each further one takes as much as the third."""


@dataclass(frozen=True)
class PassMemory:
    """Bytes beside the weights and their gradients."""

    kept: float
    """At the end of the forward pass: what the backward pass needs of it, and the batch."""
    peak: float
    """The most at any time."""


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that are made inside it, while they live."""

    def __init__(self, outside: torch.nn.Module) -> None:
        """`outside`: a module whose weights do not count."""
        super().__init__()
        self.live = self.peak = 0
        self.outside = [tensor.untyped_storage() for tensor in (*outside.parameters(), *outside.buffers())]
        self.known = {id(storage) for storage in self.outside}

    def __torch_dispatch__(self, operation: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        result = operation(*arguments, **(options or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self.add(tensor.untyped_storage())
        return result

    def add(self, storage: torch.UntypedStorage) -> None:
        key = id(storage)
        if key in self.known:
            return
        self.known.add(key)
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self.drop, key, storage.nbytes())

    def drop(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.live -= size


class FusedAttention(torch.autograd.Function):
    """Keeps for the backward pass what fused attention keeps; computes nothing."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        output = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, output, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3])


class FuseAttention(TorchFunctionMode):
    """Puts `FusedAttention` in the place of torch's, which on the meta device would write out all scores."""

    def __torch_function__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        options = options or {}
        if function is not F.scaled_dot_product_attention:
            return function(*arguments, **options)
        return FusedAttention.apply(
            *arguments[:3], *(options[name] for name in ("query", "key", "value")[len(arguments) :])
        )


def pass_memory(preset: Preset) -> PassMemory:
    """Return the memory of one forward and backward pass of a micro-batch.

    By the preset's own sizes where its base is not on this machine; PresetError for a base that does not fit.
    """
    model = empty_transformer(preset, base_needed=False)
    return PassMemory(*over_layers(model, lambda part: count(part, preset)))


def over_layers(
    model: ShareVerseTransformer3DModel, measure: Callable[[ShareVerseTransformer3DModel], tuple[float, ...]]
) -> tuple[float, ...]:
    """Return what `measure` gives for an empty model, for one of many layers from what it gives for few of them."""
    every, layers = model.config.cross_agent_every, model.config.num_layers
    if layers <= FEW_PERIODS * every:
        return measure(model)
    two, three = (measure(with_layers(model, periods * every)) for periods in (2, 3))
    return tuple(low + (layers / every - 2) * (high - low) for low, high in zip(two, three, strict=True))


def with_layers(model: ShareVerseTransformer3DModel, layers: int) -> ShareVerseTransformer3DModel:
    """Return an empty model that differs in its number of layers."""
    with torch.device("meta"):
        return ShareVerseTransformer3DModel.from_config(dict(model.config) | {"num_layers": layers})


def count(model: ShareVerseTransformer3DModel, preset: Preset) -> tuple[float, float]:
    """Return the memory of a pass of a model on the meta device: kept, and the peak."""
    training, transformer = preset.training, preset.transformer
    dtype = torch.bfloat16 if use_bf16(training.precision) else torch.float32
    with torch.device("meta"):
        choose_trained(model, preset)
    torch.nn.Module.to(model, dtype)  # diffusers' own would warn about modules that must stay float32: it has none
    if training.gradient_checkpointing:
        model.enable_gradient_checkpointing(
            functools.partial(
                checkpoint, use_reentrant=False, context_fn=lambda: (contextlib.nullcontext(), FuseAttention())
            )
        )
    for parameter in model.parameters():
        if parameter.requires_grad:  # ZeRO takes each gradient as soon as it is there
            parameter.register_post_accumulate_grad_hook(drop_gradient)
    scheduler = noise_schedule(preset.objective)
    scheduler.alphas_cumprod = scheduler.alphas_cumprod.to("meta")
    with torch.device("meta"), LiveBytes(model) as memory, FuseAttention():
        text = torch.empty(1, transformer.text_tokens, transformer.text_embed_dim)
        loss = training_loss(model, scheduler, empty_batch(preset), text, dtype).mean
        kept = memory.live
        torch.autograd.backward(loss)
    return float(kept), float(memory.peak)


def drop_gradient(parameter: torch.Tensor) -> None:
    parameter.grad = None


def empty_batch(preset: Preset) -> Batch:
    """Return a micro-batch on the device of the context."""
    frames, channels, height, width = preset.latent_shape
    pairs = preset.training.micro_batch_size

    def empty(frames: int, channels: int) -> torch.Tensor:
        return torch.empty(pairs, AGENTS, frames, channels, height, width)

    raymap_channels = RAYMAP_CHANNELS * (2 if preset.pair_raymaps else 1)
    return Batch(
        latents=empty(frames, channels),
        image_latents=empty(frames if preset.objective.image_condition == "all" else 1, channels),
        noise=empty(frames, channels),
        raymaps=empty(frames, raymap_channels),
        timesteps=torch.zeros(pairs, dtype=torch.long),
        given_frames=preset.given_frames,
        predicts_change=preset.predicts_change,
    )


def decode_memory(preset: Preset) -> float:
    """Return the bytes that it takes to decode a pair's videos one after the other in the training's precision, with
    the copy of the VAE that does it: nothing to speak of with the linear codec.

    CodecError for a VAE that cannot be read.
    """
    if preset.codec.codec == "linear":
        return 0.0
    dtype = torch.bfloat16 if use_bf16(preset.training.precision) else torch.float32
    vae = torch.nn.Module.to(empty_vae(preset.codec), dtype)
    copied = 0 if dtype == torch.float32 else sum(parameter.nbytes for parameter in vae.parameters())
    codec, (frames, channels, height, width) = VaeCodec(vae), preset.latent_shape
    few = min(frames, FRAMES_DECODED)
    tile = min(height, vae.tile_latent_min_height), min(width, vae.tile_latent_min_width)
    with torch.device("meta"), LiveBytes(vae) as memory:
        codec.decode(torch.empty(1, few, channels, *tile))
    pixels = 3 * preset.video.frames * preset.video.height * preset.video.width
    finished = 2 * AGENTS * pixels * torch.float32.itemsize  # one by one, and together
    return copied + memory.peak + DECODED_COPIES * pixels * dtype.itemsize + finished
