"""Intervals that know that the windows of one scene are not independent, and shuffles across scenes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from scipy.stats import t as student

DRAWS = 10_000
LEVEL = 0.95
FEWEST_DRAWN = 6


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float
    clusters: int

    def __str__(self) -> str:
        return f"{self.mean:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"


def cluster_interval(values: Sequence[float] | np.ndarray, clusters: Sequence[str], *, seed: int = 0) -> Interval:
    """Return the mean of values [N] and its 95 % interval: clusters are drawn with replacement (bootstrap).

    A test split has few scenes, for which a percentile bootstrap is too narrow; its percentiles are widened by
    Student's t (Hesterberg's expanded percentile interval). No draw goes beyond the lowest and highest cluster, so
    fewer than FEWEST_DRAWN clusters get Student's interval about the mean, from the clusters' residuals.
    ValueError for fewer than two clusters.
    """
    values = np.asarray(values, np.float64)
    names, members = np.unique(np.asarray(clusters), return_inverse=True)
    count = len(names)
    if count < 2:
        raise ValueError(f"an interval over scenes needs two of them, and there is {count}")
    sums, sizes = np.bincount(members, values), np.bincount(members)
    mean, quantile = float(values.mean()), student.ppf((1 - LEVEL) / 2, count - 1)
    if count < FEWEST_DRAWN:
        reach = abs(quantile) * np.std((sums - mean * sizes) / sizes.mean(), ddof=1) / np.sqrt(count)
        return Interval(mean, float(mean - reach), float(mean + reach), count)
    drawn = np.random.default_rng(seed).integers(0, count, (DRAWS, count))
    means = sums[drawn].sum(1) / sizes[drawn].sum(1)
    tail = NormalDist().cdf(np.sqrt(count / (count - 1)) * quantile)
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(mean, float(low), float(high), count)


def donors(scenes: Sequence[str], *, seed: int = 0) -> list[int]:
    """Return for each of N windows the position of one from another scene; no scene keeps any of its own.

    The scenes are put in a random ring and each takes from the next, window by window. ValueError for one scene.
    """
    names = sorted(set(scenes))
    if len(names) < 2:
        raise ValueError(f"shuffling between scenes needs two of them, and there is {len(names)}")
    ring = [names[place] for place in np.random.default_rng(seed).permutation(len(names))]
    following = dict(zip(ring, [*ring[1:], ring[0]], strict=True))
    members = {name: [place for place, scene in enumerate(scenes) if scene == name] for name in names}
    return [members[following[scene]][members[scene].index(place) % len(members[following[scene]])]
            for place, scene in enumerate(scenes)]  # fmt: skip
