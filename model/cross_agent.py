"""What ShareVerse adds between CogVideoX's DiT blocks: raymap encoders, cross-agent attention (paper, 4.2 and 4.3)."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXBlock
from torch import nn

Rotary = tuple[torch.Tensor, torch.Tensor] | None


class RaymapEncoder(nn.Module):
    """Embeds a raymap [N, F, 24, H, W] as tokens [N, F*h*w, dim] to be added to the video's; zero at the start."""

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
    """Attention over all agents' tokens, laid along the frame axis, behind a projector that is zero at the start.

    `mode` "attention": AdaLN, attention, gate, projector. "block": the feed-forward half of a DiT block too.
    `within` keeps each agent to its own tokens: the control of equal capacity for ablations (trap 39).
    The text stream is empty, so CogVideoX's own attention processor serves unchanged.
    """

    def __init__(self, *, mode: str = "attention", within: bool = False, **block: Any) -> None:
        super().__init__(**block)
        self.mode, self.within = mode, within
        if mode == "attention":
            del self.norm2, self.ff
        dim = block["dim"]
        self.projector = nn.Linear(dim, dim)
        self.reset()

    def reset(self) -> None:
        nn.init.zeros_(self.projector.weight)
        nn.init.zeros_(self.projector.bias)

    def forward(self, tokens: torch.Tensor, temb: torch.Tensor, rotary: Rotary, agents: int) -> torch.Tensor:
        """Return what is added to `tokens` [B*A, N, D]; temb [B*A, T]; rotary tables for the attended length."""
        count, dim = tokens.shape[1:]
        no_text = tokens.new_zeros(len(tokens), 0, dim)
        normed, _, gate, _ = self.norm1(tokens, no_text, temb)
        together = normed if self.within else normed.reshape(-1, agents * count, dim)
        attended, _ = self.attn1(
            hidden_states=together,
            encoder_hidden_states=together.new_zeros(len(together), 0, dim),
            image_rotary_emb=rotary,
        )
        update = gate * attended.reshape(-1, count, dim)
        if self.mode == "block":
            normed, _, gate, _ = self.norm2(tokens + update, no_text, temb)
            update = update + gate * self.ff(normed)
        return self.projector(update)
