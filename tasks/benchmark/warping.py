"""Pictures carried from one camera to another by true depth, hidden surfaces tested."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from model import mosaic

FAR_M = 655.0
"""What is farther, or has no depth, lies here: its direction is all that counts."""
TOLERANCE = 0.1
"""Relative difference in depth up to which two cameras see the same surface."""


def views_of(mosaics: torch.Tensor, views: int) -> torch.Tensor:
    """Cut [..., C, H, W] into [..., V, C, h, w]."""
    return mosaic.split(mosaics) if views == 4 else mosaics.unsqueeze(-4)


def at_size(K: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return intrinsics [..., 3, 3] of a stored view for the same view at another size."""
    scale = K.new_ones(*K.shape[:-2], 3, 1)
    scale[..., 0, 0] = width / (2 * K[..., 0, 2])
    scale[..., 1, 0] = height / (2 * K[..., 1, 2])
    return K * scale


def world_points(K: torch.Tensor, c2w: torch.Tensor, depth_m: torch.Tensor) -> torch.Tensor:
    """Return the world point [V, T, h, w, 3] behind each pixel; K [V, 3, 3], c2w [V, T, 4, 4], depth [V, T, h, w]."""
    height, width = depth_m.shape[-2:]
    v, u = torch.meshgrid(
        torch.arange(height, dtype=K.dtype) + 0.5, torch.arange(width, dtype=K.dtype) + 0.5, indexing="ij"
    )
    local = torch.stack([u, v, torch.ones_like(u)], -1) @ torch.linalg.inv(K)[:, None].mT  # V h w 3
    rays = torch.einsum("vtij,vhwj->vthwi", c2w[..., :3, :3], local)
    return rays * depth_m[..., None] + c2w[..., None, None, :3, 3]


def look_up(
    points: torch.Tensor, K: torch.Tensor, c2w: torch.Tensor, picture: torch.Tensor, depth_m: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Look points [P, 3] up in one view: its colours [P, 3], and the distance along its axis [P], inf where unseen.

    K [3, 3], c2w [4, 4], picture [3, h, w], depth [h, w]. A point is seen when it lies at the depth that the view
    has there, at the nearest pixel or between pixels (exact on planes, whose inverse depth is linear).
    """
    height, width = depth_m.shape
    local = (points - c2w[:3, 3]) @ c2w[:3, :3]
    z = local[:, 2]
    ahead = z > 1e-3
    image = local @ K.T
    grid = 2 * image[:, :2] / torch.where(ahead, z, 1.0)[:, None] / image.new_tensor([width, height]) - 1
    inside = ahead & (grid.abs() <= 1).all(1)
    grid = torch.where(inside[:, None], grid, 2.0)[None, :, None]
    inverse = (1 / depth_m)[None, None]
    smooth, nearest = (
        F.grid_sample(inverse, grid, mode=mode, padding_mode="border", align_corners=False)[0, 0, :, 0]
        for mode in ("bilinear", "nearest")
    )
    error = torch.minimum((smooth * z - 1).abs(), (nearest * z - 1).abs())
    colours = F.grid_sample(picture[None], grid, mode="nearest", padding_mode="border", align_corners=False)
    return colours[0, :, :, 0].T, torch.where(inside & (error < TOLERANCE), z, torch.inf)


def warp(first: torch.Tensor, K: torch.Tensor, c2w: torch.Tensor, depth_m: torch.Tensor, *, both: bool) -> torch.Tensor:
    """Return mosaics [A, 3, T, H, W]: each pixel from the first frame that sees its point from nearest.

    first [A, 3, H, W], K [A, V, 3, 3] of the stored view, c2w [A, V, T, 4, 4], true depth [A, T, H, W]. `both`: from
    any agent's first frame, else from one's own; one's own pixel of frame 0 where none sees the point. Nothing is
    taken to move.
    """
    agents, count, frames = c2w.shape[:3]
    depth = views_of(depth_m.double().clamp(max=FAR_M)[:, :, None], count)[:, :, :, 0].transpose(1, 2)  # A V T h w
    pictures = views_of(first.double(), count)  # A V 3 h w
    K, c2w = at_size(K.double(), *depth.shape[-2:]), c2w.double()
    videos = []
    for agent in range(agents):
        points = world_points(K[agent], c2w[agent], depth[agent])
        filled = pictures[agent][:, None].expand(-1, frames, -1, -1, -1).movedim(2, -1).reshape(-1, 3)
        nearest = filled.new_full((len(filled),), torch.inf)
        for source in range(agents) if both else [agent]:
            for view in range(count):
                colours, z = look_up(
                    points.reshape(-1, 3), K[source, view], c2w[source, view, 0], pictures[source, view],
                    depth[source, view, 0],
                )  # fmt: skip
                filled = torch.where((z < nearest)[:, None], colours, filled)
                nearest = torch.minimum(nearest, z)
        views = filled.view(count, frames, *depth.shape[-2:], 3).permute(1, 0, 4, 2, 3)  # T V 3 h w
        video = mosaic.assemble(views)
        video[0] = first[agent]
        videos.append(video.transpose(0, 1).float())
    return torch.stack(videos)
