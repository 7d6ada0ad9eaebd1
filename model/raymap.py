"""Camera trajectories as raymaps: 24 channels in the shape of the latents (paper, section 4.2)."""

from __future__ import annotations

import torch

from model import mosaic

RAYMAP_CHANNELS = 24
SPATIAL, TEMPORAL = 8, 4
"""The codec's compression, which raymaps follow."""


def view_rays(K: torch.Tensor, c2w: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """Return ray directions in the world, [..., 3, rows, columns], with z = 1 in the camera.

    K [..., 3, 3] is of a view whose principal point is its middle. The paper draws a ray a pixel and shrinks the map 8
    times bilinearly; a ray is linear in the pixel, so that is the ray through the middle of each 8x8 block, drawn here.
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


def pack_time(frames: torch.Tensor) -> torch.Tensor:
    """Pack [..., T, 6, h, w] to [..., (T-1)/4+1, 24, h, w]: frame 0 four times, then consecutive fours (trap 21)."""
    count = frames.shape[-4]
    if count % TEMPORAL != 1:
        raise ValueError(f"a clip has 4k+1 frames, not {count}")
    padded = torch.cat([frames[..., :1, :, :, :]] * (TEMPORAL - 1) + [frames], -4)
    return padded.unflatten(-4, (-1, TEMPORAL)).flatten(-4, -3)


def centroid(c2w: torch.Tensor, frames: str) -> torch.Tensor:
    """Return the mean camera position [..., 3] of c2w [..., A, V, T, 4, 4], common to all in a pair (trap 23).

    Over all frames it is the paper's; over frame 0 it tells an agent nothing of the other's future (trap 41).
    """
    positions = c2w[..., :3, 3]
    return (positions[..., :1, :] if frames == "first" else positions).mean((-4, -3, -2))


def facing_agent0(c2w: torch.Tensor) -> torch.Tensor:
    """Turn the world of c2w [..., A, V, T, 4, 4] about its vertical: agent 0's first camera looks along x in frame 0.

    The axes of a map are arbitrary; so chosen, a model need not learn every heading anew.
    """
    forward = c2w[..., 0, 0, 0, :3, 2]
    length = torch.hypot(forward[..., 0], forward[..., 1])
    cosine, sine = forward[..., 0] / length, forward[..., 1] / length
    turn = torch.zeros(*cosine.shape, 4, 4, dtype=c2w.dtype)
    turn[..., 0, 0] = turn[..., 1, 1] = cosine
    turn[..., 0, 1], turn[..., 1, 0] = sine, -sine
    turn[..., 2, 2] = turn[..., 3, 3] = 1.0
    return turn[..., None, None, None, :, :] @ c2w


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
    translation: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return [..., A, F, 24, height/8, width/8] float32 for cameras K [..., A, V, 3, 3], c2w [..., A, V, T, 4, 4].

    height, width: pixels of the video the model sees (a mosaic, or the front view). `camera` "raw" gives the ablation's
    raw values instead: viewing direction and position of each frame, constant over a view. Positions are in units of
    `unit_m` metres, minus the common centroid, plus `translation` [..., 3] metres (training). `axes`: the "map"'s (the
    paper), or those of "agent0".
    """
    if views == "front":
        K, c2w = K[..., :1, :, :], c2w[..., :1, :, :, :]
    K, c2w = K.double(), c2w.double()
    if axes == "agent0":
        c2w = facing_agent0(c2w)
    count = K.shape[-3]
    rows, columns = (
        (height // SPATIAL, width // SPATIAL) if count == 1 else (height // SPATIAL // 2, width // SPATIAL // 2)
    )
    offset = centroid(c2w, centroid_frames)
    if translation is not None:
        offset = offset - translation
    origin = (c2w[..., :3, 3] - offset[..., None, None, None, :]) / unit_m
    if camera == "raw":
        rays = c2w[..., :3, 2, None, None].expand(*c2w.shape[:-2], 3, rows, columns)
    else:
        per_frame = K[..., None, :, :].expand(*c2w.shape[:-2], 3, 3)
        rays = view_rays(per_frame, c2w, rows, columns)
    maps = torch.cat([rays, origin[..., None, None].expand_as(rays)], -3)
    joined = mosaic.assemble(maps.transpose(-5, -4))
    return pack_time(joined).float()
