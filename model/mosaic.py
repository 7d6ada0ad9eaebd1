"""Four views in one image: front and rear above, left and right below (paper, section 4.3).

A 360-pixel view is 45 latent columns, so with a patch size of two one column of tokens straddles two views. Views are
therefore resized before they are joined, and separated before they are scored (trap 22: tokens straddle views).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def assemble(views: torch.Tensor) -> torch.Tensor:
    """Join [..., 4, C, h, w] (front, rear, left, right) into [..., C, 2h, 2w]. One view [..., 1, C, h, w] is returned
    as [..., C, h, w]."""
    if views.shape[-4] == 1:
        return views.squeeze(-4)
    if views.shape[-4] != 4:
        raise ValueError(f"a mosaic takes 4 views or 1, not {views.shape[-4]}")
    front, rear, left, right = views.unbind(-4)
    return torch.cat([torch.cat([front, rear], -1), torch.cat([left, right], -1)], -2)


def split(mosaic: torch.Tensor) -> torch.Tensor:
    """Split [..., C, H, W] into [..., 4, C, H/2, W/2]: front, rear, left, right."""
    height, width = mosaic.shape[-2:]
    if height % 2 or width % 2:
        raise ValueError(f"a mosaic has even sides, not {width}x{height}")
    above, below = mosaic.split(height // 2, -2)
    return torch.stack([*above.split(width // 2, -1), *below.split(width // 2, -1)], -4)


def resize(mosaic: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Shrink a float mosaic [..., C, H, W] to height x width, view by view, by area averaging."""
    if mosaic.shape[-2:] == (height, width):
        return mosaic
    views = split(mosaic)
    shrunk = F.interpolate(views.flatten(0, -4), (height // 2, width // 2), mode="area")
    return assemble(shrunk.unflatten(0, views.shape[:-3]))
