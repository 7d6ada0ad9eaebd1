"""The embedded CARLA's eyes: a tiled ray caster in numba. pip only, no display, the same bits on every run."""

from .renderer import Renderer
from .warm_up import warm_up

__all__ = ["Renderer", "warm_up"]
