"""ShareVerse's transformer: CogVideoX's, with raymap encoders and cross-agent attention in every second block.

At the start it computes CogVideoX, bit for bit: what is added is zero. The base's key names stay, so its checkpoints
load.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from diffusers import CogVideoXTransformer3DModel
from diffusers.configuration_utils import register_to_config
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from torch import nn

from model.cross_agent import CrossAgentBlock, RaymapEncoder, Rotary
from model.raymap import CHANNELS

ADDED = ("raymap_encoders.", "cross_agent_blocks.", "agent_embedding")
"""Beginnings of the parameter names that CogVideoX does not have."""


def crop_region(source: tuple[int, int], width: int, height: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the corners of the position grid for a (height, width) of tokens, as CogVideoX's pipelines choose them."""
    rows, columns = source
    if rows / columns > height / width:
        inner = (height, round(height / rows * columns))
    else:
        inner = (round(width / columns * rows), width)
    top, left = round((height - inner[0]) / 2.0), round((width - inner[1]) / 2.0)
    return (top, left), (top + inner[0], left + inner[1])


class ShareVerseTransformer3DModel(CogVideoXTransformer3DModel):
    """Several agents' latents, one world.

    Switches (paper, section 5.3, and ours): `cross_agent` on | within | off, `cross_agent_mode` attention | block,
    `cross_rope` doubled (rotary positions over A*F frames, the paper) | shared (one time axis, agent embeddings).
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
    ) -> None:
        given = dict(locals())
        own = ("cross_agent", "cross_agent_mode", "cross_rope", "cross_agent_every", "max_agents")
        if ofs_embed_dim is not None or patch_size_t is not None:
            raise ValueError("this is a CogVideoX 1.5 configuration: ShareVerse is built on CogVideoX-5B-I2V (trap 26)")
        super().__init__(**{k: v for k, v in given.items() if k not in (*own, "self", "__class__")})
        dim = num_attention_heads * attention_head_dim
        places = [str(place) for place in range(0, num_layers, cross_agent_every)]
        self.raymap_encoders = nn.ModuleDict({k: RaymapEncoder(CHANNELS, dim, patch_size) for k in places})
        self.cross_agent_blocks = nn.ModuleDict()
        self.agent_embedding: nn.Parameter | None = None
        if cross_agent != "off":
            if cross_rope == "shared":
                self.agent_embedding = nn.Parameter(torch.zeros(max_agents, dim))
            for place in places:
                self.cross_agent_blocks[place] = CrossAgentBlock(
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
    def init_added(self) -> None:
        """Copy each cross-agent block from the DiT block that follows it; projectors and raymap encoders to zero.

        To be called after the base's weights are loaded (trap 24).
        """
        for place, block in self.cross_agent_blocks.items():
            source = self.transformer_blocks[int(place)].state_dict()
            kept = {name: source.get(name, value) for name, value in block.state_dict().items()}
            block.load_state_dict(kept)
            block.reset()  # type: ignore[operator]
        for encoder in self.raymap_encoders.values():
            encoder.reset()  # type: ignore[operator]
        if self.agent_embedding is not None:
            nn.init.normal_(self.agent_embedding, std=0.02)

    @classmethod
    def from_base(cls, base: CogVideoXTransformer3DModel, **switches: Any) -> ShareVerseTransformer3DModel:
        """Return a model that computes what `base` does for each agent, ready to learn the exchange between them.

        ValueError for a CogVideoX 1.5 base or one whose weights do not fit.
        """
        config = {name: value for name, value in dict(base.config).items() if not name.startswith("_")}
        model = cls(**config, **switches).to(dtype=base.dtype, device=base.device)
        missing, unexpected = model.load_state_dict(base.state_dict(), strict=False)
        wrong = [*unexpected, *(name for name in missing if not name.startswith(ADDED))]
        if wrong:
            raise ValueError(f"the base does not fit this configuration: {wrong[0]} and {len(wrong) - 1} more differ")
        model.init_added()
        return model

    def rotary(self, frames: int, height: int, width: int, device: torch.device) -> Rotary:
        """Return CogVideoX's rotary tables for so many latent frames; None for a base without them."""
        config = self.config
        if not config.use_rotary_positional_embeddings:
            return None
        rows, columns = height // config.patch_size, width // config.patch_size
        crops = crop_region(
            (rows, columns), config.sample_width // config.patch_size, config.sample_height // config.patch_size
        )
        return get_3d_rotary_pos_embed(config.attention_head_dim, crops, (rows, columns), frames, device=device)

    def cross_rotary(self, agents: int, frames: int, height: int, width: int, device: torch.device) -> Rotary:
        """Return the tables of the cross-agent blocks: doubled frames (paper), or one time axis for all agents."""
        if self.config.cross_agent == "within":
            return self.rotary(frames, height, width, device)
        if self.config.cross_rope == "doubled":
            return self.rotary(agents * frames, height, width, device)
        tables = self.rotary(frames, height, width, device)
        return None if tables is None else (tables[0].repeat(agents, 1), tables[1].repeat(agents, 1))

    def check_inputs(self, hidden_states: torch.Tensor, text: torch.Tensor, raymaps: torch.Tensor | None) -> None:
        """Raise ValueError where CogVideoX would fail obscurely or go on silently (trap 15)."""
        config, (batch, agents, frames, _, height, width) = self.config, hidden_states.shape
        if config.use_learned_positional_embeddings:
            wanted = (
                (config.sample_frames - 1) // config.temporal_compression_ratio + 1,
                config.sample_height,
                config.sample_width,
            )
            if (frames, height, width) != wanted:
                raise ValueError(
                    f"this base takes latents of {wanted} (frames, height, width), not {(frames, height, width)}"
                )
            if text.shape[-2] != config.max_text_seq_length:
                raise ValueError(f"this base takes {config.max_text_seq_length} text tokens, not {text.shape[-2]}")
        if raymaps is not None and raymaps.shape != (batch, agents, frames, CHANNELS, height, width):
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
        """Predict for hidden_states [B, A, F, C, H, W], encoder_hidden_states [B, L, D], timestep [B] and raymaps
        [B, A, F, 24, H, W]; return `.sample` [B, A, F, C_out, H, W]."""
        self.check_inputs(hidden_states, encoder_hidden_states, raymaps)
        batch, agents, frames, _, height, width = hidden_states.shape
        latents = hidden_states.flatten(0, 1)
        rays = None if raymaps is None else raymaps.flatten(0, 1).to(latents.dtype)
        text = encoder_hidden_states.repeat_interleave(agents, 0)
        own = self.rotary(frames, height, width, latents.device)
        cross = self.cross_rotary(agents, frames, height, width, latents.device)

        time = self.time_proj(timestep.repeat_interleave(agents)).to(latents.dtype)
        temb = self.time_embedding(time, None)
        embedded = self.embedding_dropout(self.patch_embed(text, latents))
        text, tokens = embedded[:, : text.shape[1]], embedded[:, text.shape[1] :]
        for index, block in enumerate(self.transformer_blocks):
            place = str(index)
            if place in self.raymap_encoders and rays is not None:
                tokens = tokens + self.raymap_encoders[place](rays)
            if place in self.cross_agent_blocks:
                named = tokens if self.agent_embedding is None else tokens + self.names(batch, agents, tokens)
                tokens = tokens + self.run(self.cross_agent_blocks[place], named, temb, cross, agents)
            tokens, text = self.run(block, tokens, text, temb, own, attention_kwargs)
        tokens = self.proj_out(self.norm_out(self.norm_final(tokens), temb=temb))
        patch = self.config.patch_size
        grid = tokens.reshape(batch, agents, frames, height // patch, width // patch, -1, patch, patch)
        sample = grid.permute(0, 1, 2, 5, 3, 6, 4, 7).reshape(batch, agents, frames, -1, height, width)
        return Transformer2DModelOutput(sample=sample) if return_dict else (sample,)

    def names(self, batch: int, agents: int, tokens: torch.Tensor) -> torch.Tensor:
        """Return the agents' embeddings [B*A, 1, D] (cross_rope "shared")."""
        assert self.agent_embedding is not None
        return self.agent_embedding[:agents].repeat(batch, 1)[:, None].to(tokens.dtype)

    def run(self, block: nn.Module, *inputs: Any) -> Any:
        """Call a block, under gradient checkpointing where that is on."""
        if torch.is_grad_enabled() and self.gradient_checkpointing:
            return self._gradient_checkpointing_func(block, *inputs)
        return block(*inputs)
