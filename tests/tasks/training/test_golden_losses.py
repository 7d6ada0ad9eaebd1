"""The loss curve of preset `tiny`: what no other test notices, a change of numerics, changes it."""

from __future__ import annotations

import pytest

from tests import golden_losses


def numbers(curve: list[list[str]]) -> list[list[float]]:
    return [[float("nan" if word == "-" else word) for word in words] for words in curve]


def test_tiny_trains_as_recorded(state, monkeypatch):
    """Processors differ in the order of their sums; 1e-4 leaves room for that and for nothing else."""
    monkeypatch.setenv("SHAREVERSE_HOME", str(state[0]))
    expected = numbers(golden_losses.recorded())
    found = numbers(golden_losses.measured(state[1]))
    assert len(found) == len(expected) == 6
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, nan_ok=True), "python -m tests.golden_losses renews them"
