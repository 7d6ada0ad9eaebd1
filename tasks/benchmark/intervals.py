"""95 % intervals of shares over scenes that hold at 0 and at 1, where a bootstrap collapses to a point.

The clips of a scene are not independent. They are taken as one: the share of each scene is one observation between 0
and 1, whose variance is at most that of a coin, so that Wilson's interval on the number of scenes is never too narrow
(E. B. Wilson, 1927). Two arms on the same scenes: R. G. Newcombe, "Improved confidence intervals for the difference
between binomial proportions based on paired data", 1998, method 10 without continuity correction; what arms share is
their covariance on the scale of coins, as Wilson's intervals are, so that shares between 0 and 1 do not exaggerate it.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from tasks.evaluation.measures.statistics import LEVEL, Interval

Z = NormalDist().inv_cdf((1 + LEVEL) / 2)


def share_interval(shares: Sequence[float] | np.ndarray) -> Interval:
    """Return the mean of one share per scene, each in [0, 1], and its interval. ValueError for no scene."""
    values = np.asarray(shares, np.float64)
    count = len(values)
    if not count:
        raise ValueError("an interval over scenes needs one, and there is none")
    mean = float(values.mean())
    middle = (mean + Z**2 / (2 * count)) / (1 + Z**2 / count)
    half = Z / (1 + Z**2 / count) * np.sqrt(mean * (1 - mean) / count + Z**2 / (4 * count**2))
    return Interval(mean, min(mean, float(middle - half)), max(mean, float(middle + half)), count)


def paired_interval(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray) -> Interval:
    """Return the difference first - second of shares of the same scenes, in the same order, and its interval."""
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if len(a) != len(b):
        raise ValueError(f"a paired difference needs the same scenes, and there are {len(a)} and {len(b)}")
    one, two = share_interval(a), share_interval(b)
    spread = np.sqrt(one.mean * (1 - one.mean) * two.mean * (1 - two.mean))  # of 0 and 1: a.std() * b.std()
    together = float(((a - a.mean()) * (b - b.mean())).mean() / spread) if spread > 0 else 0.0

    def reach(up: float, down: float) -> float:
        return float(np.sqrt(max(0.0, up**2 - 2 * together * up * down + down**2)))

    mean = one.mean - two.mean
    low = mean - reach(one.mean - one.low, two.high - two.mean)
    high = mean + reach(one.high - one.mean, two.mean - two.low)
    return Interval(mean, low, high, one.clusters)
