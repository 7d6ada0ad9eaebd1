"""The empty prompt's embedding as a part of a pipeline: the one text that the model ever sees."""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin


class EmptyText(ModelMixin, ConfigMixin):
    """Stands where CogVideoX's pipelines have a tokenizer and T5 (trap 16: never load T5 to train)."""

    embedding: torch.Tensor
    """[1, L, D]"""

    @register_to_config
    def __init__(self, tokens: int = 226, dim: int = 4096) -> None:
        super().__init__()
        self.register_buffer("embedding", torch.zeros(1, tokens, dim))

    @classmethod
    def of(cls, embedding: torch.Tensor) -> EmptyText:
        """Return the module with this embedding [1, L, D], on its device."""
        text = cls(*embedding.shape[1:])
        text.embedding = embedding
        return text

    def forward(self, batch: int) -> torch.Tensor:
        """Return the embedding [batch, L, D], the same for every video."""
        return self.embedding.expand(batch, -1, -1)
