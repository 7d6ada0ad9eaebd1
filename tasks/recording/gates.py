"""Quality gates: what a recording must show to be kept. Scores are kept with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tasks.planning.rows import FIRST_EXTRA_ID
from tasks.recording.errors import GateError

DEFAULTS = {
    "min_luminance": 6.0,
    "min_motion": 0.5,
    "max_frozen_frames": 0,
    "max_collisions": 0,
    "min_visible_frames": 1,
    "min_fact_pixels": 24,
    "min_told_pixels": 3,
}
"""Mean of every view (0..255); mean change between stored frames; identical neighbours; contacts; frames in which an
agent sees the other, over the recording and both agents. Of a hidden fact, where instances are recorded: stored pixels
that show it to its observer after the first frame, and to an agent that is to know it in the first one (an observer
that sees any there is refused always). A plan's preset may change any of them."""


@dataclass
class Scores:
    """Gathered while a recording runs."""

    luminance: list[float] = field(default_factory=list)
    motion: list[float] = field(default_factory=list)
    frozen_frames: int = 0
    visible_frames: list[int] = field(default_factory=lambda: [0, 0])
    """Stored frames in which agent 0 sees agent 1, and the other way round."""
    collisions: int = 0
    fact: dict[str, Any] = field(default_factory=dict)
    """Of the plan's row; empty in ordinary recordings."""
    fact_pixels: dict[str, int] = field(default_factory=dict)
    """Stored pixels that show the fact: to its observer "first" and "later", and "told" to the other agent."""
    previous: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)

    def add(self, window: int, agent: int, views: list[np.ndarray], seen: bool) -> None:
        """Take an agent's stored frame: views [h, w, 3] BGR; `seen` says whether the other car shows in it."""
        joined = np.stack(views)
        self.luminance.append(float(joined.mean((1, 2, 3)).min()))
        last = self.previous.get((window, agent))
        if last is not None:
            change = float(np.abs(joined.astype(np.int16) - last).mean())
            self.motion.append(change)
            self.frozen_frames += change == 0.0
        self.previous[window, agent] = joined.astype(np.int16)
        self.visible_frames[agent] += seen

    def add_instances(self, agent: int, frame: np.ndarray, *, first: bool) -> None:
        """Take an agent's stored instance mosaic [H, W] (extra actor k is FIRST_EXTRA_ID + k)."""
        if not self.fact.get("actors"):
            return
        count = int(np.isin(frame, [FIRST_EXTRA_ID + actor for actor in self.fact["actors"]]).sum())
        mine = agent == self.fact["observer"]
        name = ("first" if first else "later") if mine else ("told" if first else "")
        if name:
            self.fact_pixels[name] = self.fact_pixels.get(name, 0) + count

    def summary(self) -> dict[str, float]:
        return {
            "min_luminance": round(min(self.luminance), 3),
            "mean_motion": round(float(np.mean(self.motion)), 3) if self.motion else 0.0,
            "frozen_frames": self.frozen_frames,
            "agent0_sees_agent1_frames": self.visible_frames[0],
            "agent1_sees_agent0_frames": self.visible_frames[1],
            "collisions": self.collisions,
        } | {f"fact_pixels_{name}": count for name, count in self.fact_pixels.items()}

    def judge(self, thresholds: dict[str, float]) -> None:
        """Raise GateError for the first gate that is not passed."""
        limits, found = DEFAULTS | thresholds, self.summary()
        visible = found["agent0_sees_agent1_frames"] + found["agent1_sees_agent0_frames"]
        for name, value, limit, good in (
            ("a view is black: luminance", found["min_luminance"], limits["min_luminance"], True),
            ("nothing moves: motion", found["mean_motion"], limits["min_motion"], True),
            ("frozen frames", found["frozen_frames"], limits["max_frozen_frames"], False),
            ("contacts of the cars", found["collisions"], limits["max_collisions"], False),
            ("the agents never see each other: frames", visible, limits["min_visible_frames"], True),
        ):
            if (value < limit) if good else (value > limit):
                raise GateError(f"{name} {value:g}, limit {limit:g}.")
        self.judge_fact(limits)

    def judge_fact(self, limits: dict[str, float]) -> None:
        """Raise GateError when the hidden fact is not hidden, or not shown, as the scene promises."""
        seen, later, told = self.fact_pixels, limits["min_fact_pixels"], limits["min_told_pixels"]
        if seen.get("first", 0):
            raise GateError(f"the observer sees the fact at the start: pixels {seen['first']}, limit 0.")
        if seen.get("later", later) < later:
            raise GateError(f"the fact shows too little later: pixels {seen['later']}, limit {later:g}.")
        if self.fact.get("informative") and seen.get("told", told) < told:
            raise GateError(f"the other agent hardly sees the fact: pixels {seen['told']}, limit {told:g}.")
