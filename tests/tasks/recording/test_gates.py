"""What a recording must show to be kept."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.recording.errors import GateError
from tasks.recording.gates import RecordingScores


def views(seed: int, level: int = 120) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(level - 40, level + 40, (8, 12, 3)).astype(np.uint8) for _ in range(4)]


def good() -> RecordingScores:
    scores = RecordingScores()
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
    scores = RecordingScores()
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


def with_fact(first: int = 0, later: int = 40, told: int = 6, informative: bool = True) -> RecordingScores:
    """Scores of a recording whose fact is extra actor 1, id 4, in so many pixels of each kind of frame."""
    scores = good()
    scores.fact = {"observer": 0, "actors": [1], "informative": informative}
    for agent, start, count in ((0, True, first), (0, False, later), (1, True, told), (1, False, 99)):
        frame = np.full((20, 20), 3, np.uint16)
        frame.flat[:count] = 4
        scores.add_instances(agent, frame, first=start)
    return scores


def test_a_hidden_fact_passes_and_is_counted():
    scores = with_fact()
    scores.judge({})
    found = scores.summary()
    assert [found[f"fact_pixels_{name}"] for name in ("first", "later", "told")] == [0, 40, 6]
    with_fact(told=0, informative=False).judge({})


@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        (with_fact(first=1), "the observer sees the fact at the start: pixels 1, limit 0"),
        (with_fact(later=23), "the fact shows too little later: pixels 23, limit 24"),
        (with_fact(told=2), "the other agent hardly sees the fact: pixels 2, limit 3"),
    ],
)
def test_a_fact_that_is_not_as_promised_is_refused(scores, reason):
    with pytest.raises(GateError, match=reason):
        scores.judge({})
