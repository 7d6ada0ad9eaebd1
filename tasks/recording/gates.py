"""Quality gates: what a recording must show to be kept. Its scores are stored with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tasks.planning.rows import FIRST_EXTRA_ID
from tasks.recording.errors import GateError

DEFAULT_THRESHOLDS = {
    "min_luminance": 6.0,
    "min_motion": 0.5,
    "max_frozen_frames": 0,
    "max_collisions": 0,
    "min_visible_frames": 1,
    "min_fact_pixels": 24,
    "min_told_pixels": 3,
}
"""Thresholds that a plan's preset may change:

- min_luminance: mean of every single view in every stored frame (0..255).
- min_motion: mean absolute change of a pixel between successive stored frames (0..255), over the recording.
- max_frozen_frames: stored frames that equal the one before.
- max_collisions: contacts of the two cars.
- min_visible_frames: stored frames in which one agent sees the other, summed over both agents.
- min_fact_pixels: stored pixels, after the first frame, that show a hidden fact to its observer.
- min_told_pixels: stored pixels of the first frame that show the fact to the other agent, where it is to know it.

The last two apply where instances are recorded. An observer that sees any of the fact in the first frame is refused
whatever the thresholds."""


@dataclass
class RecordingScores:
    """Measured on the stored frames while a recording runs."""

    luminance: list[float] = field(default_factory=list)
    """Mean of the darkest view, per stored frame and agent."""
    motion: list[float] = field(default_factory=list)
    """Mean absolute change of a pixel, per stored frame and agent."""
    frozen_frames: int = 0
    visible_frames: list[int] = field(default_factory=lambda: [0, 0])
    """Stored frames in which agent 0 sees agent 1, and in which agent 1 sees agent 0."""
    collisions: int = 0
    fact: dict[str, Any] = field(default_factory=dict)
    """The hidden fact of the plan's row; empty in ordinary recordings."""
    fact_pixels: dict[str, int] = field(default_factory=dict)
    """Stored pixels that show the fact: "first" and "later" to its observer, "told" to the other agent at the start."""
    previous_views: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)

    def add(self, window: int, agent: int, views: list[np.ndarray], seen: bool) -> None:
        """Score an agent's stored frame: its views [h, w, 3] BGR, and whether the other car was `seen` in them."""
        stacked = np.stack(views)
        self.luminance.append(float(stacked.mean((1, 2, 3)).min()))
        previous = self.previous_views.get((window, agent))
        if previous is not None:
            change = float(np.abs(stacked.astype(np.int16) - previous).mean())
            self.motion.append(change)
            self.frozen_frames += change == 0.0
        self.previous_views[window, agent] = stacked.astype(np.int16)
        self.visible_frames[agent] += seen

    def add_instances(self, agent: int, frame: np.ndarray, *, first: bool) -> None:
        """Count the fact's pixels in an agent's stored instance mosaic [H, W] (extra actor k: FIRST_EXTRA_ID + k)."""
        if not self.fact.get("actors"):
            return
        pixels = int(np.isin(frame, [FIRST_EXTRA_ID + actor for actor in self.fact["actors"]]).sum())
        is_observer = agent == self.fact["observer"]
        name = ("first" if first else "later") if is_observer else ("told" if first else "")
        if name:
            self.fact_pixels[name] = self.fact_pixels.get(name, 0) + pixels

    def summary(self) -> dict[str, float]:
        """Return the scores as recording.json and meta.json hold them."""
        return {
            "min_luminance": round(min(self.luminance), 3),
            "mean_motion": round(float(np.mean(self.motion)), 3) if self.motion else 0.0,
            "frozen_frames": self.frozen_frames,
            "agent0_sees_agent1_frames": self.visible_frames[0],
            "agent1_sees_agent0_frames": self.visible_frames[1],
            "collisions": self.collisions,
        } | {f"fact_pixels_{name}": count for name, count in self.fact_pixels.items()}

    def judge(self, thresholds: dict[str, float]) -> None:
        """Raise GateError for the first gate that is not passed. `thresholds` replace the defaults."""
        limits, scores = DEFAULT_THRESHOLDS | thresholds, self.summary()
        visible = scores["agent0_sees_agent1_frames"] + scores["agent1_sees_agent0_frames"]
        for name, value, limit, is_minimum in (
            ("a view is black: luminance", scores["min_luminance"], limits["min_luminance"], True),
            ("nothing moves: motion", scores["mean_motion"], limits["min_motion"], True),
            ("frozen frames", scores["frozen_frames"], limits["max_frozen_frames"], False),
            ("contacts of the cars", scores["collisions"], limits["max_collisions"], False),
            ("the agents never see each other: frames", visible, limits["min_visible_frames"], True),
        ):
            if (value < limit) if is_minimum else (value > limit):
                raise GateError(f"{name} {value:g}, limit {limit:g}.")
        self.judge_fact(limits)

    def judge_fact(self, limits: dict[str, float]) -> None:
        """Raise GateError when the hidden fact is not hidden, or not shown, as the scene promises."""
        pixels, min_later, min_told = self.fact_pixels, limits["min_fact_pixels"], limits["min_told_pixels"]
        if pixels.get("first", 0):
            raise GateError(f"the observer sees the fact at the start: pixels {pixels['first']}, limit 0.")
        if pixels.get("later", min_later) < min_later:
            raise GateError(f"the fact shows too little later: pixels {pixels['later']}, limit {min_later:g}.")
        if self.fact.get("informative") and pixels.get("told", min_told) < min_told:
            raise GateError(f"the other agent hardly sees the fact: pixels {pixels['told']}, limit {min_told:g}.")
