"""What a recording must show to be kept."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.recording.errors import GateError
from tasks.recording.gates import Scores


def views(seed: int, level: int = 120) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(level - 40, level + 40, (8, 12, 3)).astype(np.uint8) for _ in range(4)]


def good() -> Scores:
    scores = Scores()
    for frame in range(5):
        for agent in (0, 1):
            scores.add(0, agent, views(10 * frame + agent), seen=frame == 3)
    return scores


def test_a_good_recording_passes_and_keeps_its_scores():
    scores = good()
    scores.judge({})
    found = scores.summary()
    assert found["agent0_sees_agent1_frames"] == found["agent1_sees_agent0_frames"] == 1
    assert found["frozen_frames"] == found["collisions"] == 0
    assert found["mean_motion"] > 10


def test_one_black_view_is_enough():
    scores, dark = good(), views(99)
    dark[2][:] = 2
    scores.add(0, 0, dark, seen=False)
    with pytest.raises(GateError, match="a view is black: luminance 2, limit 6"):
        scores.judge({})


def test_frozen_frames_are_counted_by_agent_and_window():
    scores = Scores()
    for window in (0, 49):
        for agent in (0, 1):
            scores.add(window, agent, views(1), seen=True)
    assert scores.summary()["frozen_frames"] == 0
    scores.add(49, 1, views(1), seen=True)
    scores.add(49, 0, views(2), seen=True)
    with pytest.raises(GateError, match="frozen frames 1, limit 0"):
        scores.judge({})


def test_contacts_and_strangers_are_rejected():
    scores = good()
    scores.collisions = 1
    with pytest.raises(GateError, match="contacts of the cars 1, limit 0"):
        scores.judge({})
    scores = good()
    scores.visible_frames = [0, 0]
    with pytest.raises(GateError, match="never see each other: frames 0, limit 1"):
        scores.judge({})


def test_the_plan_sets_the_thresholds():
    scores = good()
    scores.visible_frames, scores.collisions = [0, 0], 3
    scores.judge({"min_visible_frames": 0, "max_collisions": 3})
    with pytest.raises(GateError, match="limit 99"):
        scores.judge({"min_visible_frames": 0, "max_collisions": 3, "min_motion": 99})
