"""ShareVerse's transformer: CogVideoX's, with raymap encoders and cross-agent attention before every second block.

Before training it computes exactly what CogVideoX does, because the added modules output zero. The base's parameter
names are unchanged, so CogVideoX checkpoints load.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from diffusers import CogVideoXTransformer3DModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from torch import nn

from model.cross_agent import CrossAgentBlock, RaymapEncoder, RotaryTables
from model.raymap import RAYMAP_CHANNELS

ADDED_PREFIXES = ("raymap_encoders.", "cross_agent_blocks.", "pair_raymap_encoders.", "agent_embedding")
"""Prefixes of the parameters that CogVideoX does not have."""
CROSS_AGENT_OPTIONS = ("cross_agent", "cross_agent_mode", "cross_rope", "cross_agent_every", "pair_raymaps")
"""Arguments of the model that CogVideoX does not have, and that a preset sets."""


def module_of(name: str) -> str:
    """Return the first two parts of a weight's name: of what ShareVerse adds, a list of modules and a layer."""
    return ".".join(name.split(".")[:2])


def crop_region(source: tuple[int, int], width: int, height: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the top-left and bottom-right corners of the largest centred crop of a `height` x `width` token grid that
    has the aspect ratio of `source` (rows, columns). The same as in CogVideoX's pipelines."""
    rows, columns = source
    if rows / columns > height / width:
        crop = (height, round(height / rows * columns))
    else:
        crop = (round(width / columns * rows), width)
    top, left = round((height - crop[0]) / 2.0), round((width - crop[1]) / 2.0)
    return (top, left), (top + crop[0], left + crop[1])


class ShareVerseTransformer3DModel(CogVideoXTransformer3DModel):
    """Denoises the latents of several agents that share one world.

    Ablation options (the first is the paper's, section 5.3; the others are ours):
    `cross_agent`: "on", "within" (each agent attends to itself, the control) or "off";
    `cross_agent_mode`: "attention" alone, or a "block" with the feed-forward half too;
    `cross_rope`: "doubled" (rotary positions over A*F frames, as in the paper) or "shared" (one time axis for all
    agents, told apart by agent embeddings);
    `pair_raymaps`: raymaps have 48 channels, 24 in each agent's own axes for the raymap encoders and 24 in the pair's
    for encoders of the cross-agent blocks.

    `rotary_height`, `rotary_width`: size in latents of the grid that rotary positions are laid over, where it is not
    `sample_height` and `sample_width`: that of a base for another picture.
    """

    _no_split_modules: ClassVar[list[str]] = [
        "CogVideoXBlock",
        "CogVideoXPatchEmbed",
        "CrossAgentBlock",
        "RaymapEncoder",
    ]

    @register_to_config
    def __init__(
        self,
        num_attention_heads: int = 30,
        attention_head_dim: int = 64,
        in_channels: int = 16,
        out_channels: int | None = 16,
        flip_sin_to_cos: bool = True,
        freq_shift: int = 0,
        time_embed_dim: int = 512,
        ofs_embed_dim: int | None = None,
        text_embed_dim: int = 4096,
        num_layers: int = 30,
        dropout: float = 0.0,
        attention_bias: bool = True,
        sample_width: int = 90,
        sample_height: int = 60,
        sample_frames: int = 49,
        patch_size: int = 2,
        patch_size_t: int | None = None,
        temporal_compression_ratio: int = 4,
        max_text_seq_length: int = 226,
        activation_fn: str = "gelu-approximate",
        timestep_activation_fn: str = "silu",
        norm_elementwise_affine: bool = True,
        norm_eps: float = 1e-5,
        spatial_interpolation_scale: float = 1.875,
        temporal_interpolation_scale: float = 1.0,
        use_rotary_positional_embeddings: bool = False,
        use_learned_positional_embeddings: bool = False,
        patch_bias: bool = True,
        cross_agent: str = "on",
        cross_agent_mode: str = "attention",
        cross_rope: str = "doubled",
        cross_agent_every: int = 2,
        max_agents: int = 8,
        pair_raymaps: bool = False,
        rotary_height: int | None = None,
        rotary_width: int | None = None,
    ) -> None:
        arguments = dict(locals())
        not_cogvideox = (*CROSS_AGENT_OPTIONS, "max_agents", "rotary_height", "rotary_width")
        if ofs_embed_dim is not None or patch_size_t is not None:
            raise ValueError(
                "this is a CogVideoX 1.5 configuration, but ShareVerse is built on CogVideoX-5B-I2V "
                "(trap 26: CogVideoX 1.5 differs)"
            )
        super().__init__(**{k: v for k, v in arguments.items() if k not in (*not_cogvideox, "self", "__class__")})
        dim = num_attention_heads * attention_head_dim
        layers = [str(index) for index in range(0, num_layers, cross_agent_every)]
        self.raymap_encoders = nn.ModuleDict(
            {layer: RaymapEncoder(RAYMAP_CHANNELS, dim, patch_size) for layer in layers}
        )
        self.cross_agent_blocks = nn.ModuleDict()
        self.pair_raymap_encoders = nn.ModuleDict()
        self.agent_embedding: nn.Parameter | None = None
        if cross_agent != "off":
            if cross_rope == "shared":
                self.agent_embedding = nn.Parameter(torch.zeros(max_agents, dim))
            for layer in layers:
                if pair_raymaps:
                    self.pair_raymap_encoders[layer] = RaymapEncoder(RAYMAP_CHANNELS, dim, patch_size)
                self.cross_agent_blocks[layer] = CrossAgentBlock(
                    mode=cross_agent_mode,
                    within=cross_agent == "within",
                    dim=dim,
                    num_attention_heads=num_attention_heads,
                    attention_head_dim=attention_head_dim,
                    time_embed_dim=time_embed_dim,
                    dropout=dropout,
                    activation_fn=activation_fn,
                    attention_bias=attention_bias,
                    norm_elementwise_affine=norm_elementwise_affine,
                    norm_eps=norm_eps,
                )

    @torch.no_grad()
    def init_added_modules(self, stored: Iterable[str] = ()) -> None:
        """Copy each cross-agent block from the DiT block that follows it; zero the projectors and raymap encoders.

        Call it after the base's weights are loaded (trap 24: blocks copied late). `stored`: the names of these weights;
        modules that a base of our own brought along stay as they are.
        """
        kept = {module_of(name) for name in stored}
        for layer, block in self.cross_agent_blocks.items():
            if f"cross_agent_blocks.{layer}" in kept:
                continue
            dit_weights = self.transformer_blocks[int(layer)].state_dict()
            block.load_state_dict({name: dit_weights.get(name, value) for name, value in block.state_dict().items()})
            block.reset()  # type: ignore[operator]
        for kind in ("raymap_encoders", "pair_raymap_encoders"):
            for layer, encoder in getattr(self, kind).items():
                if f"{kind}.{layer}" not in kept:
                    encoder.reset()
        if self.agent_embedding is not None and "agent_embedding" not in kept:
            drawn = torch.empty(self.agent_embedding.shape)  # on the CPU, so that every device gets the same
            self.agent_embedding.copy_(nn.init.normal_(drawn, std=0.02))

    @torch.no_grad()
    def start_at_zero(self) -> None:
        """Make the output zero, for a model from scratch that predicts a change."""
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    @torch.no_grad()
    def compute_positions(self) -> None:
        """Fill CogVideoX's fixed positions, which no checkpoint holds, in a model that was laid out without memory."""
        embed = self.patch_embed
        if embed.use_positional_embeddings and not embed.use_learned_positional_embeddings:
            size = embed.sample_height, embed.sample_width, embed.sample_frames
            embed.pos_embedding.copy_(embed._get_positional_embeddings(*size))

    @classmethod
    def from_base(cls, base: CogVideoXTransformer3DModel, **options: Any) -> ShareVerseTransformer3DModel:
        """Return a model that computes what `base` does for each agent, ready to learn the exchange between them.

        `base` is a CogVideoX, or a model of this class, of which everything that it has is kept. `options` are the
        ablation options of this class. ValueError for a CogVideoX 1.5 base, or one whose weights do not fit.
        """
        config = {name: value for name, value in dict(base.config).items() if not name.startswith("_")}
        model = cls(**(config | options)).to(dtype=base.dtype, device=base.device)
        weights = base.state_dict()
        model.check_base_weights(weights)
        model.load_state_dict(weights, strict=False)
        model.init_added_modules(weights)
        return model

    def check_base_weights(self, names: Iterable[str]) -> None:
        """Raise ValueError unless weights of these names are a base of this model: the whole of CogVideoX's, and of
        each module that it does not have all or nothing."""
        ours, theirs = set(self.state_dict()), set(names)
        modules = {module_of(name) for name in theirs}
        missing = {name for name in ours - theirs if not name.startswith(ADDED_PREFIXES) or module_of(name) in modules}
        if differing := sorted(missing | theirs - ours):
            raise ValueError(
                f"the base does not fit this configuration: {differing[0]} and {len(differing) - 1} more differ"
            )

    def rotary_tables(self, frames: int, height: int, width: int, device: torch.device) -> RotaryTables:
        """Return CogVideoX's rotary tables for `frames` latent frames of `height` x `width` latents.

        None for a base without rotary positions.
        """
        config = self.config
        if not config.use_rotary_positional_embeddings:
            return None
        rows, columns = height // config.patch_size, width // config.patch_size
        height, width = config.rotary_height or config.sample_height, config.rotary_width or config.sample_width
        crops = crop_region((rows, columns), width // config.patch_size, height // config.patch_size)
        return get_3d_rotary_pos_embed(config.attention_head_dim, crops, (rows, columns), frames, device=device)

    def cross_agent_rotary_tables(
        self, agents: int, frames: int, height: int, width: int, device: torch.device
    ) -> RotaryTables:
        """Return the rotary tables of the cross-agent blocks.

        "doubled": positions over A*F frames (paper, section 4.3). "shared": the same time axis for every agent.
        """
        if self.config.cross_agent == "within":
            return self.rotary_tables(frames, height, width, device)
        if self.config.cross_rope == "doubled":
            return self.rotary_tables(agents * frames, height, width, device)
        tables = self.rotary_tables(frames, height, width, device)
        return None if tables is None else (tables[0].repeat(agents, 1), tables[1].repeat(agents, 1))

    @property
    def raymap_channels(self) -> int:
        """Channels of the raymaps that `forward` takes: 24, or 48 with `pair_raymaps`."""
        return RAYMAP_CHANNELS * (2 if self.config.pair_raymaps else 1)

    def check_inputs(self, hidden_states: torch.Tensor, text: torch.Tensor, raymaps: torch.Tensor | None) -> None:
        """Raise ValueError where CogVideoX would fail obscurely or go on silently (trap 15: learned positions)."""
        config, (batch, agents, frames, _, height, width) = self.config, hidden_states.shape
        if config.use_learned_positional_embeddings:
            expected = (
                (config.sample_frames - 1) // config.temporal_compression_ratio + 1,
                config.sample_height,
                config.sample_width,
            )
            if (frames, height, width) != expected:
                raise ValueError(
                    f"this base takes latents of {expected} (frames, height, width), not {(frames, height, width)}"
                )
            if text.shape[-2] != config.max_text_seq_length:
                raise ValueError(f"this base takes {config.max_text_seq_length} text tokens, not {text.shape[-2]}")
        if raymaps is not None and raymaps.shape != (batch, agents, frames, self.raymap_channels, height, width):
            raise ValueError(f"raymaps {tuple(raymaps.shape)} do not fit latents {tuple(hidden_states.shape)}")

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        timestep: torch.Tensor,
        raymaps: torch.Tensor | None = None,
        attention_kwargs: dict[str, Any] | None = None,
        return_dict: bool = True,
    ) -> Transformer2DModelOutput | tuple[torch.Tensor]:
        """Predict v, or x, for every agent.

        hidden_states [B, A, F, C, H, W], encoder_hidden_states [B, L, D] (text), timestep [B], raymaps
        [B, A, F, 24 or 48, H, W]. Returns `.sample` [B, A, F, C_out, H, W].
        """
        self.check_inputs(hidden_states, encoder_hidden_states, raymaps)
        batch, agents, frames, _, height, width = hidden_states.shape
        latents = hidden_states.flatten(0, 1)
        rays = None if raymaps is None else raymaps.flatten(0, 1).to(latents.dtype)
        text = encoder_hidden_states.repeat_interleave(agents, 0)
        rotary = self.rotary_tables(frames, height, width, latents.device)
        cross_agent_rotary = self.cross_agent_rotary_tables(agents, frames, height, width, latents.device)

        timestep_features = self.time_proj(timestep.repeat_interleave(agents)).to(latents.dtype)
        temb = self.time_embedding(timestep_features, None)
        embedded = self.embedding_dropout(self.patch_embed(text, latents))
        text, tokens = embedded[:, : text.shape[1]], embedded[:, text.shape[1] :]
        for layer_index, block in enumerate(self.transformer_blocks):
            layer = str(layer_index)  # keys of a ModuleDict are strings
            if layer in self.raymap_encoders and rays is not None:
                tokens = tokens + self.raymap_encoders[layer](rays[:, :, :RAYMAP_CHANNELS])
            if layer in self.cross_agent_blocks:
                attended = self.add_agent_embeddings(tokens, batch, agents)
                if layer in self.pair_raymap_encoders and rays is not None:
                    attended = attended + self.pair_raymap_encoders[layer](rays[:, :, RAYMAP_CHANNELS:])
                cross_agent_block = self.cross_agent_blocks[layer]
                tokens = tokens + self.checkpointed(cross_agent_block, attended, temb, cross_agent_rotary, agents)
            tokens, text = self.checkpointed(block, tokens, text, temb, rotary, attention_kwargs)
        tokens = self.proj_out(self.norm_out(self.norm_final(tokens), temb=temb))
        patch = self.config.patch_size
        grid = tokens.reshape(batch, agents, frames, height // patch, width // patch, -1, patch, patch)
        sample = grid.permute(0, 1, 2, 5, 3, 6, 4, 7).reshape(batch, agents, frames, -1, height, width)
        return Transformer2DModelOutput(sample=sample) if return_dict else (sample,)

    def add_agent_embeddings(self, tokens: torch.Tensor, batch: int, agents: int) -> torch.Tensor:
        """Return tokens [B*A, N, D] with each agent's embedding added, where there are any (cross_rope "shared")."""
        if self.agent_embedding is None:
            return tokens
        return tokens + self.agent_embedding[:agents].repeat(batch, 1)[:, None].to(tokens.dtype)

    def checkpointed(self, block: nn.Module, *inputs: Any) -> Any:
        """Call a block, under gradient checkpointing if it is on."""
        if torch.is_grad_enabled() and self.gradient_checkpointing:
            return self._gradient_checkpointing_func(block, *inputs)
        return block(*inputs)
