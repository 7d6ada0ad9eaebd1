"""Four views as one picture: front and rear above, left and right below (paper, section 4.3).

A 360-pixel view is 45 latent columns, so with patches of two one column of tokens straddles two views: views are
resized before they are joined and cut apart before they are scored (trap 22).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def assemble(views: torch.Tensor) -> torch.Tensor:
    """Join [..., 4, C, h, w] (front, rear, left, right) to [..., C, 2h, 2w]. A single view [..., 1, C, h, w] stays."""
    if views.shape[-4] == 1:
        return views.squeeze(-4)
    if views.shape[-4] != 4:
        raise ValueError(f"a mosaic takes 4 views or 1, not {views.shape[-4]}")
    front, rear, left, right = views.unbind(-4)
    return torch.cat([torch.cat([front, rear], -1), torch.cat([left, right], -1)], -2)


def split(mosaic: torch.Tensor) -> torch.Tensor:
    """Cut [..., C, H, W] into [..., 4, C, H/2, W/2]: front, rear, left, right."""
    height, width = mosaic.shape[-2:]
    if height % 2 or width % 2:
        raise ValueError(f"a mosaic has even sides, not {width}x{height}")
    above, below = mosaic.split(height // 2, -2)
    return torch.stack([*above.split(width // 2, -1), *below.split(width // 2, -1)], -4)


def resize(mosaic: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Shrink a float mosaic [..., C, H, W] view by view to height x width by averaging areas."""
    if mosaic.shape[-2:] == (height, width):
        return mosaic
    views = split(mosaic)
    small = F.interpolate(views.flatten(0, -4), (height // 2, width // 2), mode="area")
    return assemble(small.unflatten(0, views.shape[:-3]))
