"""The embedded CARLA's eyes: a tiled ray caster in numba. pip only, no display, the same bits on every run."""

from .renderer import Renderer

__all__ = ["Renderer"]
