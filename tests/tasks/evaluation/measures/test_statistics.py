"""Intervals cover what they promise; a shuffle keeps nothing in its place."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.evaluation.measures.statistics import cluster_interval, donors
from tasks.evaluation.scoring.windows import balanced


@pytest.mark.parametrize("clusters", [2, 3, 4, 5, 6, 20])
def test_the_interval_covers_the_truth_19_times_in_20(clusters):
    """Windows of one scene share an effect; an interval that took them as independent would cover about half."""
    rng = np.random.default_rng(1)
    names = [f"scene{number}" for number in range(clusters) for _ in range(9)]
    covered, trials = 0, 300
    for trial in range(trials):
        values = np.repeat(rng.normal(0.7, 1.0, clusters), 9) + rng.normal(0, 0.3, clusters * 9)
        interval = cluster_interval(values, names, seed=trial)
        covered += interval.low <= 0.7 <= interval.high
        assert interval.low <= interval.mean <= interval.high
    assert 0.91 <= covered / trials <= 0.985


def test_the_interval_is_the_same_each_time_and_knows_its_clusters():
    values, names = np.arange(12.0), ["a"] * 4 + ["b"] * 4 + ["c"] * 4
    assert cluster_interval(values, names) == cluster_interval(values, names)
    assert cluster_interval(values, names).clusters == 3
    assert cluster_interval(np.full(12, 2.0), names).low == pytest.approx(2.0)
    with pytest.raises(ValueError, match="two of them, and there is 1"):
        cluster_interval([1.0, 2.0], ["a", "a"])


@pytest.mark.parametrize("sizes", [(1, 1), (9, 9, 9), (2, 5, 3, 1)])
def test_no_scene_keeps_its_own_raymaps(sizes):
    scenes = [f"scene{number}" for number, size in enumerate(sizes) for _ in range(size)]
    for seed in range(20):
        given = donors(scenes, seed=seed)
        assert len(given) == len(scenes)
        assert all(scenes[place] != scenes[donor] for place, donor in enumerate(given))
        of_each = {scene: {scenes[given[p]] for p, s in enumerate(scenes) if s == scene} for scene in set(scenes)}
        assert all(len(sources) == 1 for sources in of_each.values())
        assert len({next(iter(sources)) for sources in of_each.values()}) == len(sizes)
    if len(set(sizes)) == 1:
        assert len(set(donors(scenes))) == len(scenes)


def test_one_scene_cannot_be_shuffled():
    with pytest.raises(ValueError, match="two of them"):
        donors(["a", "a"])


def test_a_subset_takes_as_many_of_every_recording():
    groups = ["a"] * 10 + ["b"] * 4 + ["c"] * 7
    chosen = balanced(groups, 9)
    assert chosen == sorted(set(chosen))
    assert [sum(groups[place] == name for place in chosen) for name in "abc"] == [3, 3, 3]
    assert balanced(groups, 100) == list(range(21))
    assert balanced(groups, 9) == chosen
