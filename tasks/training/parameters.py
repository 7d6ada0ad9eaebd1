"""The parameters of train-shareverse that change a model preset, of the types that the preset has."""

from __future__ import annotations

from typing import Annotated, Any

from model.presets import CrossAgent, LearningRate, Preset, Seed, TrainSteps
from model.presets.base import OverridesOf

__all__ = ["CrossAgent", "LearningRate", "Overrides", "Seed", "TrainSteps", "changes"]

Overrides = Annotated[dict[str, Any], OverridesOf(Preset)]
"""Fields of a model preset that change, by their bare names."""


def changes(overrides: dict[str, Any] | None, **given: Any) -> dict[str, Any]:
    """Return everything that changes in the preset. PresetError for a field that is given twice."""
    return Preset.changes(overrides, **given)
