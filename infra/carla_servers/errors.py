"""Errors of CARLA servers: those that another launch may cure, and those that it cannot."""

from __future__ import annotations


class CarlaServerError(RuntimeError):
    """A CARLA server cannot be started or used. Unless it is a NotReady, another launch would not help."""


class NotReady(CarlaServerError):
    """A launch failed; another one may work."""
