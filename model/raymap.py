"""Camera trajectories as raymaps: 24 channels in the shape of the latents (paper, section 4.2)."""

from __future__ import annotations

from typing import Any

import torch

from model import mosaic
from model.presets import SPATIAL_FACTOR, TEMPORAL_FACTOR

RAYMAP_CHANNELS = 24
"""Ray direction and origin (6) of the four frames in a latent frame."""


def ray_directions(K: torch.Tensor, c2w: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Return ray directions in the world, [..., 3, rows, columns], scaled to z = 1 in the camera.

    K [..., 3, 3] must have its principal point at the centre of the view. The paper casts one ray per pixel and
    downsamples the map 8x bilinearly. Rays are linear in the pixel, so that equals casting one ray through the centre
    of each 8x8 block, as here.
    """
    width, height = 2 * K[..., 0, 2], 2 * K[..., 1, 2]
    u = (torch.arange(columns, dtype=K.dtype) + 0.5) / columns
    v = (torch.arange(rows, dtype=K.dtype) + 0.5) / rows
    x = (u * width[..., None] - K[..., 0, 2, None]) / K[..., 0, 0, None]
    y = (v * height[..., None] - K[..., 1, 2, None]) / K[..., 1, 1, None]
    shape = (*K.shape[:-2], rows, columns)
    local = torch.stack(
        [x[..., None, :].expand(shape), y[..., :, None].expand(shape), torch.ones(shape, dtype=K.dtype)], -3
    )
    return torch.einsum("...ij,...jrc->...irc", c2w[..., :3, :3], local)


def pack_time(rays: torch.Tensor) -> torch.Tensor:
    """Pack rays [..., T, 6, h, w] per frame into [..., (T-1)/4+1, 24, h, w] per latent frame.

    Frame 0 four times, then consecutive groups of four (trap 21: consecutive, not strided).
    """
    frames = rays.shape[-4]
    if frames % TEMPORAL_FACTOR != 1:
        raise ValueError(f"a clip has 4k+1 frames, not {frames}")
    padded = torch.cat([rays[..., :1, :, :, :]] * (TEMPORAL_FACTOR - 1) + [rays], -4)
    return padded.unflatten(-4, (-1, TEMPORAL_FACTOR)).flatten(-4, -3)


def camera_centroid(c2w: torch.Tensor, frames: str) -> torch.Tensor:
    """Return the mean camera position [..., 3] of c2w [..., A, V, T, 4, 4], one per pair (trap 23: shared centroid).

    `frames` "all" is the paper's; "first" tells an agent nothing about the other's future (trap 41: future leaks).
    """
    positions = c2w[..., :3, 3]
    return (positions[..., :1, :] if frames == "first" else positions).mean((-4, -3, -2))


def align(c2w: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Rotate the world of c2w [..., A, V, T, 4, 4] about the vertical so that the camera `reference` looks along x.

    `reference` [..., 4, 4] is one per pair, or [..., A, 4, 4] one per agent. The axes of a map are arbitrary; aligned
    like this, the model need not learn every heading separately.
    """
    forward = reference[..., :3, 2]
    length = torch.hypot(forward[..., 0], forward[..., 1])
    cosine, sine = forward[..., 0] / length, forward[..., 1] / length
    turn = torch.zeros(*cosine.shape, 4, 4, dtype=c2w.dtype)
    turn[..., 0, 0] = turn[..., 1, 1] = cosine
    turn[..., 0, 1], turn[..., 1, 0] = sine, -sine
    turn[..., 2, 2] = turn[..., 3, 3] = 1.0
    return turn[(..., *[None] * (c2w.ndim - turn.ndim), slice(None), slice(None))] @ c2w


def build_raymaps(
    K: torch.Tensor,
    c2w: torch.Tensor,
    *,
    height: int,
    width: int,
    views: str = "four",
    camera: str = "raymap",
    unit_m: float = 1.0,
    centroid_frames: str = "all",
    axes: str = "map",
    pair_axes: bool = False,
    translation: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return raymaps [..., A, F, 24, height/8, width/8] float32 for cameras K [..., A, V, 3, 3], c2w
    [..., A, V, T, 4, 4].

    height, width: pixels of the video that the model sees, a mosaic or the front view. `camera`: "raymap", or "raw" for
    the ablation: viewing direction and position of each frame, constant over a view. Positions are relative to the
    pair's centroid, plus `translation` [..., 3] metres (in training), in units of `unit_m` metres. `axes`: those of the
    "map" (paper), aligned to "agent0", or each agent's "own": its first camera looks along x in frame 0, and its
    cameras' mean position there is the origin. `pair_axes`: 24 more channels, the same rays in the axes of "agent0",
    for the cross-agent blocks of a model with "own" axes, which say nothing about where the other agent is.
    """
    if pair_axes:
        options: dict[str, Any] = {"height": height, "width": width, "views": views, "camera": camera, "unit_m": unit_m,
                                   "centroid_frames": centroid_frames, "translation": translation}  # fmt: skip
        return torch.cat([build_raymaps(K, c2w, axes=each, **options) for each in (axes, "agent0")], -3)
    if views == "front":
        K, c2w = K[..., :1, :, :], c2w[..., :1, :, :, :]
    K, c2w = K.double(), c2w.double()
    if axes == "agent0":
        c2w = align(c2w, c2w[..., 0, 0, 0, :, :])
    elif axes == "own":
        c2w = align(c2w, c2w[..., :, 0, 0, :, :])
    rows, columns = height // SPATIAL_FACTOR, width // SPATIAL_FACTOR
    if K.shape[-3] > 1:  # four views share the mosaic
        rows, columns = rows // 2, columns // 2
    offset = camera_centroid(c2w, centroid_frames)[..., None, None, None, :]
    if axes == "own":
        offset = c2w[..., :1, :3, 3].mean(-3, keepdim=True)
    if translation is not None:
        offset = offset - translation[..., None, None, None, :]
    origin = (c2w[..., :3, 3] - offset) / unit_m
    if camera == "raw":
        rays = c2w[..., :3, 2, None, None].expand(*c2w.shape[:-2], 3, rows, columns)
    else:
        per_frame = K[..., None, :, :].expand(*c2w.shape[:-2], 3, 3)
        rays = ray_directions(per_frame, c2w, rows, columns)
    view_maps = torch.cat([rays, origin[..., None, None].expand_as(rays)], -3)
    mosaics = mosaic.assemble(view_maps.transpose(-5, -4))
    return pack_time(mosaics).float()
