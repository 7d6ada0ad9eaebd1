"""Random checkpoints in the layout of CogVideoX-5B-I2V: bfloat16, in shards with an index, in a pipeline's folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import CogVideoXTransformer3DModel

MODEL_INDEX = {
    "_class_name": "CogVideoXImageToVideoPipeline",
    "_diffusers_version": "0.31.0.dev0",
    "scheduler": ["diffusers", "CogVideoXDDIMScheduler"],
    "text_encoder": ["transformers", "T5EncoderModel"],
    "tokenizer": ["transformers", "T5Tokenizer"],
    "transformer": ["diffusers", "CogVideoXTransformer3DModel"],
    "vae": ["diffusers", "AutoencoderKLCogVideoX"],
}
SIZES = {
    "num_attention_heads": 2, "attention_head_dim": 16, "in_channels": 16, "out_channels": 8, "num_layers": 2,
    "time_embed_dim": 16, "text_embed_dim": 8, "max_text_seq_length": 1, "patch_size": 1, "sample_height": 4,
    "sample_width": 6, "sample_frames": 9, "use_rotary_positional_embeddings": True,
    "use_learned_positional_embeddings": True,
}  # fmt: skip
"""Of a base of preset `tiny` with the positions of CogVideoX-5B-I2V: rotary and learned ones."""


def write_cogvideox(folder: Path, shard: str = "40KB", **sizes: Any) -> Path:
    """Write a pipeline's folder with a random transformer, in shards of at most that size; return it."""
    torch.manual_seed(0)
    model = CogVideoXTransformer3DModel(**(SIZES | sizes))
    model.to(torch.bfloat16).save_pretrained(folder / "transformer", max_shard_size=shard)
    (folder / "model_index.json").write_text(json.dumps(MODEL_INDEX, indent=2))
    return folder
