"""Which windows of a split are kept when there are too many."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tasks.evaluation.scoring.windows import Window, Windows, balanced


def windows_of(variants: list[int], clips: int = 2) -> Windows:
    """Scenes with so many recordings each, of so many clips, without data behind them."""
    windows = object.__new__(Windows)
    windows.windows = [
        Window({"key": f"{scene}-{variant}-{clip}", "scene_id": str(scene), "window": 49 * clip}, 0)
        for scene, count in enumerate(variants)
        for variant in range(count)
        for clip in range(clips)
    ]
    return windows


@given(st.lists(st.integers(1, 3), min_size=1, max_size=8), st.integers(0, 40), st.integers(0, 3))
def test_what_is_kept_is_whole_moments_in_order_and_no_more_than_asked(variants, limit, seed):
    windows = windows_of(variants)
    everything = list(windows)
    windows.keep_at_most(limit, seed=seed)
    assert len(windows) <= limit
    assert list(windows) == [window for window in everything if window in windows.windows]
    kept = Counter(window.moment for window in windows)
    assert all(count == variants[int(moment[0])] for moment, count in kept.items())
    if limit >= len(everything):
        assert list(windows) == everything


def test_scenes_come_in_turn():
    windows = windows_of([1] * 4, clips=3)
    windows.keep_at_most(6)
    assert sorted(Counter(window.scene for window in windows).values()) == [1, 1, 2, 2]


def test_variants_of_a_scene_stay_together_where_many_scenes_are_left_out():
    """Windows picked one by one kept hardly a pair of variants of a large split, and nothing to compare."""
    windows = windows_of([2] * 100, clips=1)
    windows.keep_at_most(20)
    assert set(Counter(window.scene for window in windows).values()) == {2}
    assert len(windows) == 20


@given(st.lists(st.sampled_from("abc"), max_size=20), st.integers(0, 25), st.integers(0, 3))
def test_balanced_takes_from_all_groups_alike(groups, limit, seed):
    indices = balanced(groups, limit, seed)
    assert indices == sorted(set(indices))
    assert len(indices) == min(limit, len(groups))
    taken, there = Counter(groups[index] for index in indices), Counter(groups)
    most = max(taken.values(), default=0)
    assert all(taken[group] in (there[group], most, most - 1) for group in there)
