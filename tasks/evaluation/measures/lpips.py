"""LPIPS-alex in plain torch: torchmetrics ships the linear heads, the user brings AlexNet's weights (trap 34: metric
conventions differ).

The backbone is torchvision's alexnet-owt-7be5be79.pth, named by the environment variable SHAREVERSE_ALEXNET.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
import torchmetrics
from torch import nn

from infra.storage import sha256_file

ALEXNET_VARIABLE = "SHAREVERSE_ALEXNET"
ALEXNET_NAME = "alexnet-owt-7be5be79.pth"
ALEXNET_SHA256 = "7be5be79"
"""Beginning of the file's sha256, which torchvision puts into its name."""
SMALLEST_PX = 32
TAPS = (1, 4, 7, 9, 11)
"""Layers after which features are compared: the five ReLUs."""
EPSILON = 1e-10
FRAMES = 32
"""So many are compared at a time, which bounds the memory."""


class LpipsMissing(RuntimeError):
    """Why LPIPS cannot be measured here."""


class LpipsAlex(nn.Module):
    """Zhang et al. 2018: distances of unit-length AlexNet features, weighted by learned heads."""

    shift: torch.Tensor
    scale: torch.Tensor

    def __init__(self, backbone: Mapping[str, torch.Tensor], heads: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        self.load_state_dict({k: v for k, v in backbone.items() if k.startswith("features.")})
        self.heads = [heads[f"lin{tap}.model.1.weight"] for tap in range(len(TAPS))]
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188])[:, None, None])
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450])[:, None, None])

    def taps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return unit-length features of images [N, 3, h, w] in [-1, 1] at the five taps."""
        x, found = (images - self.shift) / self.scale, []
        for place, layer in enumerate(self.features):
            x = layer(x)
            if place in TAPS:
                found.append(x / (x.square().sum(1, keepdim=True).sqrt() + EPSILON))
        return found

    @torch.no_grad()
    def forward(self, generated: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """Return the distance, [...], of frames [..., 3, h, w] in [0, 1]."""
        pairs = zip(generated.flatten(0, -4).split(FRAMES), truth.flatten(0, -4).split(FRAMES), strict=True)
        return torch.cat([self.distance(*pair) for pair in pairs]).view(truth.shape[:-3])

    def distance(self, generated: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """Return the distance [N] of frames [N, 3, h, w] in [0, 1]."""
        taps = zip(self.taps(2 * generated - 1), self.taps(2 * truth - 1), self.heads, strict=True)
        return torch.stack([((p - q).square() * head.to(p)).sum(1).mean((1, 2)) for p, q, head in taps]).sum(0)


def load_lpips(view_height: int, view_width: int) -> LpipsAlex:
    """Load LPIPS for views of this size; LpipsMissing says why it cannot be measured."""
    path = Path(os.environ.get(ALEXNET_VARIABLE, ""))
    if not os.environ.get(ALEXNET_VARIABLE):
        raise LpipsMissing(
            f"not measured: it needs AlexNet's weights; set {ALEXNET_VARIABLE} to torchvision's {ALEXNET_NAME}"
        )
    if not path.is_file():
        raise LpipsMissing(f"not measured: {ALEXNET_VARIABLE} names {path}, which is no file")
    if not sha256_file(path).startswith(ALEXNET_SHA256):
        raise LpipsMissing(f"not measured: {path} is not torchvision's {ALEXNET_NAME} (its sha256 differs)")
    if min(view_height, view_width) < SMALLEST_PX:
        raise LpipsMissing(
            f"not measured: views of {view_width}x{view_height} pixels are too small for AlexNet, "
            f"which takes {SMALLEST_PX} at least"
        )
    heads = Path(torchmetrics.__file__).parent / "functional" / "image" / "lpips_models" / "alex.pth"
    return LpipsAlex(
        torch.load(path, map_location="cpu", weights_only=True),
        torch.load(heads, map_location="cpu", weights_only=True),
    )
