"""Pictures carried from one camera to another by true depth, hidden surfaces tested."""

from __future__ import annotations

import torch

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
    points: torch.Tensor, K: torch.Tensor, c2w: torch.Tensor, pictures: torch.Tensor, depth_m: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Look points [P, 3] up in one agent's views: colours [P, 3], and the distance along the axis [P], inf if unseen.

    K [V, 3, 3], c2w [V, 4, 4], pictures [V, 3, h, w], depth [V, h, w]. A point is seen when it lies at the depth that
    the view has there, at the nearest pixel or between pixels (exact on planes, whose inverse depth is linear).
    """
    height, width = depth_m.shape[-2:]
    local = (points - c2w[:, None, :3, 3]) @ c2w[:, :3, :3]  # V P 3
    image = local @ K.mT
    pixel = image[..., :2] / local[..., 2:]
    inside = (local[..., 2] > 1e-3) & (pixel >= 0).all(-1) & (pixel < pixel.new_tensor([width, height])).all(-1)
    view, point = inside.nonzero(as_tuple=True)
    z, (x, y) = local[view, point, 2], pixel[view, point].unbind(-1)
    column, row = x.long(), y.long()
    error = (z / depth_m[view, row, column] - 1).abs()
    between = z * inverse_depth_at(x - 0.5, y - 0.5, 1 / depth_m, view) - 1
    seen = torch.minimum(error, between.abs()) < TOLERANCE
    colours, distance = points.new_zeros(len(points), 3), points.new_full((len(points),), torch.inf)
    view, point, row, column = (part[seen] for part in (view, point, row, column))
    colours[point], distance[point] = pictures[view, :, row, column], z[seen]
    return colours, distance


def inverse_depth_at(x: torch.Tensor, y: torch.Tensor, inverse: torch.Tensor, view: torch.Tensor) -> torch.Tensor:
    """Return inverse [V, h, w] between pixels, bilinearly, at columns x and rows y [P] of views [P]."""
    height, width = inverse.shape[-2:]
    left, top = x.clamp(0, width - 1).floor().long(), y.clamp(0, height - 1).floor().long()
    right, low = (left + 1).clamp(max=width - 1), (top + 1).clamp(max=height - 1)
    across, down = x.clamp(0, width - 1) - left, y.clamp(0, height - 1) - top
    above = torch.lerp(inverse[view, top, left], inverse[view, top, right], across)
    below = torch.lerp(inverse[view, low, left], inverse[view, low, right], across)
    return torch.lerp(above, below, down)


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
        points = world_points(K[agent], c2w[agent], depth[agent]).reshape(-1, 3)
        filled = pictures[agent][:, None].expand(-1, frames, -1, -1, -1).movedim(2, -1).reshape(-1, 3)
        nearest = filled.new_full((len(filled),), torch.inf)
        for source in range(agents) if both else [agent]:
            colours, z = look_up(points, K[source], c2w[source, :, 0], pictures[source], depth[source, :, 0])
            filled = torch.where((z < nearest)[:, None], colours, filled)
            nearest = torch.minimum(nearest, z)
        views = filled.view(count, frames, *depth.shape[-2:], 3).permute(1, 0, 4, 2, 3)  # T V 3 h w
        video = mosaic.assemble(views).float()
        video[0] = first[agent]
        videos.append(video.transpose(0, 1))
    return torch.stack(videos)
