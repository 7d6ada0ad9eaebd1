"""Counterfactual response: does the generated video change as the world does?

Definition: two recordings of one scene differ in one thing (the plan's variants: the partner drives elsewhere); the
observer's cameras are the same in both. Both are generated from the same noise. With d the true change of the
observer's later frames and g the generated one (every pixel and channel),
  counterfactual_response = <g, d> / <d, d>                 how much of the true change is there
  counterfactual_cosine   = <g, d> / (|g| |d|)              how much of the generated change is the right one
  counterfactual_outside  = share of |g|^2 where |d| is less than THRESHOLD in every channel.
Range: response 0 (none) .. 1 (all), can lie outside; cosine -1..1; outside 0..1. Ground truth has 1, 1 and
nearly 0; shuffled pairs (g of another scene's pair) have about 0.
Failure cases: a true change of almost nothing (the partner is never in sight) measures nothing: below LEAST_CHANGE it
is left out; where the first frame already shows the difference to the observer, copying it is a response: read the
copied first frame's figure beside; a video that does not change at all has no cosine.
Source: the paper, Figure 3c (a building removed) and Figure 4 (the other agent's trajectory changed).
"""

from __future__ import annotations

import numpy as np

from tasks.evaluation.measures.metrics import GIVEN_FRAMES

THRESHOLD = 0.02
"""Five 8-bit steps: what H.264 changes by itself is mostly less."""
LEAST_CHANGE = 0.002
"""Share of values that must truly change by THRESHOLD or more."""


def response(
    base: np.ndarray, other: np.ndarray, true_base: np.ndarray, true_other: np.ndarray
) -> dict[str, float | None]:
    """Return the three figures of one observer's videos [V, T, h, w, 3] in [0, 1]; None where nothing truly changes.

    The cosine and the share outside are None for a generated video that does not change.
    """
    names = ("counterfactual_response", "counterfactual_cosine", "counterfactual_outside")
    g, d = (
        (second[:, GIVEN_FRAMES:] - first[:, GIVEN_FRAMES:]).astype(np.float64)
        for first, second in ((base, other), (true_base, true_other))
    )
    changes = np.abs(d) >= THRESHOLD
    if changes.mean() < LEAST_CHANGE:
        return dict.fromkeys(names)
    product, gg, dd = (g * d).sum(), np.square(g).sum(), np.square(d).sum()
    if gg == 0:
        return dict(zip(names, (0.0, None, None), strict=True))
    outside = np.square(g)[~changes.any(-1)].sum() / gg
    return dict(zip(names, map(float, (product / dd, product / np.sqrt(gg * dd), outside)), strict=True))
