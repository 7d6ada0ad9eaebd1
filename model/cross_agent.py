"""The modules that ShareVerse adds between CogVideoX's DiT blocks: raymap encoders and cross-agent attention
(paper, sections 4.2 and 4.3)."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXBlock
from torch import nn

RotaryTables = tuple[torch.Tensor, torch.Tensor] | None
"""Cosines and sines [N, head_dim] of the rotary positions of N tokens; None for a base without them."""


class RaymapEncoder(nn.Module):
    """Embeds a raymap [N, F, 24, H, W] as tokens [N, F*h*w, dim] that are added to the video's; initially zero."""

    def __init__(self, channels: int, dim: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, kernel_size=patch_size, stride=patch_size)
        self.reset()

    def reset(self) -> None:
        nn.init.zeros_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)  # type: ignore[arg-type]

    def forward(self, raymaps: torch.Tensor) -> torch.Tensor:
        tokens = self.proj(raymaps.flatten(0, 1)).flatten(2).transpose(1, 2)
        return tokens.reshape(raymaps.shape[0], -1, tokens.shape[-1])


class CrossAgentBlock(CogVideoXBlock):
    """Attention over the tokens of all agents, concatenated along the frame axis, then a projector that starts at zero.

    `mode` "attention": AdaLN, attention, gate, projector. "block": also the feed-forward half of a DiT block.
    `within` restricts each agent to its own tokens: the equal-capacity control for ablations (trap 39: ablations need
    controls). The text stream is empty, so CogVideoX's attention processor is used unchanged.
    """

    def __init__(self, *, mode: str = "attention", within: bool = False, **block_options: Any) -> None:
        super().__init__(**block_options)
        self.mode, self.within = mode, within
        if mode == "attention":
            del self.norm2, self.ff
        dim = block_options["dim"]
        self.projector = nn.Linear(dim, dim)
        self.reset()

    def reset(self) -> None:
        nn.init.zeros_(self.projector.weight)
        nn.init.zeros_(self.projector.bias)

    def forward(self, tokens: torch.Tensor, temb: torch.Tensor, rotary: RotaryTables, agents: int) -> torch.Tensor:
        """Return the update to add to `tokens` [B*A, N, D].

        temb [B*A, T] is the timestep embedding; `rotary` covers the attended tokens: A*N of them, N if `within`.
        """
        tokens_per_agent, dim = tokens.shape[1:]
        no_text = tokens.new_zeros(len(tokens), 0, dim)
        normed, _, gate, _ = self.norm1(tokens, no_text, temb)
        sequence = normed if self.within else normed.reshape(-1, agents * tokens_per_agent, dim)
        attended, _ = self.attn1(
            hidden_states=sequence,
            encoder_hidden_states=sequence.new_zeros(len(sequence), 0, dim),
            image_rotary_emb=rotary,
        )
        update = gate * attended.reshape(-1, tokens_per_agent, dim)
        if self.mode == "block":
            normed, _, gate, _ = self.norm2(tokens + update, no_text, temb)
            update = update + gate * self.ff(normed)
        return self.projector(update)
