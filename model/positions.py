"""CogVideoX-5B-I2V at another size than its own 49 frames of 480x720.

It adds learned positions to its tokens, one per place in the latent video, beside the rotary ones. A smaller or larger
picture is laid over the base's grid as CogVideoX lays it for rotary positions (`rotary_tables`): the largest centred
crop of the same aspect, with places between the grid's. Time is not stretched: of fewer frames, the first positions are
taken.
"""

from __future__ import annotations

from typing import Any

import torch

from model.presets import Preset, PresetError
from model.transformer import crop_region

LEARNED = "patch_embed.pos_embedding"
Grid = tuple[int, int, int]


def config_at_size(preset: Preset, config: dict[str, Any]) -> dict[str, Any]:
    """Return a base's configuration with the preset's video in the place of the base's own. PresetError for a longer
    one where learned positions would be stretched in time."""
    positions, frames = preset.transformer.positions, preset.video.frames
    if positions == "learned":
        return config
    learned = config.get("use_learned_positional_embeddings", False)
    if learned and positions == "interpolated" and frames > config["sample_frames"]:
        raise PresetError(
            f"frames is {frames} and base_model {preset.transformer.base_model!r} has learned positions for "
            f"{config['sample_frames']}, which are not stretched in time: take fewer frames, or set positions to "
            "dropped."
        )
    *_, height, width = preset.latent_shape
    return config | {
        "sample_frames": frames,
        "sample_height": height,
        "sample_width": width,
        "rotary_height": config.get("rotary_height") or config["sample_height"],
        "rotary_width": config.get("rotary_width") or config["sample_width"],
        "use_learned_positional_embeddings": learned and positions == "interpolated",
    }


def token_grid(config: Any) -> Grid:
    """Return frames, rows and columns of the tokens that a configuration describes."""
    frames = (config.sample_frames - 1) // config.temporal_compression_ratio + 1
    return frames, config.sample_height // config.patch_size, config.sample_width // config.patch_size


def resized_positions(stored: torch.Tensor, base: Any, wanted: Any) -> torch.Tensor:
    """Return learned positions [1, L + F*h*w, D] of a configuration `base` for the video of another one, `wanted`.

    Those of the L text tokens, and everything where the sizes are the same, stay as they are.
    """
    (frames, rows, columns), (few, *size) = token_grid(base), token_grid(wanted)
    text = base.max_text_seq_length
    grid = stored[0, text:].unflatten(0, (frames, rows, columns))[:few]
    (top, left), (bottom, right) = crop_region((size[0], size[1]), columns, rows)
    grid = resampled(resampled(grid, 1, top, bottom, size[0]), 2, left, right, size[1])
    return torch.cat([stored[:, :text], grid.flatten(0, 2)[None]], 1)


def resampled(grid: torch.Tensor, axis: int, start: int, stop: int, count: int) -> torch.Tensor:
    """Return `count` entries along an axis, linearly between its own, at the places of diffusers' rotary positions."""
    places = torch.linspace(start, stop * (count - 1) / count, count, dtype=torch.float64)
    low = places.floor().long()
    high = (low + 1).clamp(max=grid.shape[axis] - 1)
    share = (places - low).to(torch.float32).view([-1 if axis == index else 1 for index in range(grid.ndim)])
    first, second = grid.index_select(axis, low).float(), grid.index_select(axis, high).float()
    return torch.lerp(first, second, share).to(grid.dtype)
