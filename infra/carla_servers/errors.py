"""What can go wrong with a CARLA server: what another launch may cure, and what it cannot."""

from __future__ import annotations


class CarlaServerError(RuntimeError):
    """A CARLA server that cannot be started or used. Unless it is a NotReady, another launch would not help."""


class NotReady(CarlaServerError):
    """A launch that failed; another may work."""
