"""Quality gates: what a recording must show to be kept. Scores are kept with it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tasks.recording.errors import GateError

DEFAULTS = {
    "min_luminance": 6.0,
    "min_motion": 0.5,
    "max_frozen_frames": 0,
    "max_collisions": 0,
    "min_visible_frames": 1,
}
"""Mean of every view (0..255); mean change between stored frames; identical neighbours; contacts; frames in which an
agent sees the other, over the recording and both agents. A plan's preset may change any of them."""


@dataclass
class Scores:
    """Gathered while a recording runs."""

    luminance: list[float] = field(default_factory=list)
    motion: list[float] = field(default_factory=list)
    frozen_frames: int = 0
    visible_frames: list[int] = field(default_factory=lambda: [0, 0])
    """Stored frames in which agent 0 sees agent 1, and the other way round."""
    collisions: int = 0
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

    def summary(self) -> dict[str, float]:
        return {
            "min_luminance": round(min(self.luminance), 3),
            "mean_motion": round(float(np.mean(self.motion)), 3) if self.motion else 0.0,
            "frozen_frames": self.frozen_frames,
            "agent0_sees_agent1_frames": self.visible_frames[0],
            "agent1_sees_agent0_frames": self.visible_frames[1],
            "collisions": self.collisions,
        }

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
