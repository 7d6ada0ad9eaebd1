"""Visibility-split PSNR: how right is what an agent could not know by itself?

Definition: each pixel of a later frame shows a point that at frame 0 was seen by
  own         the agent's own first frame,
  only_other  not by it, but by another agent's: only an exchange can bring it,
  nobody      by none: it has to be made up.
Points are put in place by true depth and poses, carried along with the cars where they lie on one, and looked for in
the first frames' cameras with their depth (occlusion-tested). What lies at an edge of depth there, where the test is
unsure, belongs to no class; nor does what is farther than 655 m (sky has no place), nor pixels that mix surfaces.
`psnr_<class>` = -10 log10 of the mean squared error over the class's pixels of a window, RGB in [0, 1], all agents,
frame 0 left out, 60 dB at most; `share_<class>` its share of the pixels that have a depth.
Range: 0..60 dB; shares 0..1, which with the unclear rest make 1.
Failure cases: "could see" says nothing about size: a point seen as a hundredth of a pixel counts; a blurred guess of
the mean colour scores well on flat surfaces, so read the gain between arms or over another partner, not the level.
Source: the split follows from the paper's claim (section 1: agents "exchange captured visual information").
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tasks.evaluation.measures.metrics import GIVEN_FRAMES, HIGHEST_DB
from tasks.evaluation.measures.shared_world.sight import NOWHERE, SEEN, UNSEEN, look
from tasks.evaluation.measures.shared_world.world import WindowTruth

CLASSES = {"own": 1, "only_other": 2, "nobody": 3}
UNCLEAR_CLASS = 4
FEWEST_PIXELS = 64


def classify(world: WindowTruth, agent: int, frame: int) -> np.ndarray:
    """Return [V, h, w] uint8: the class of each pixel (see CLASSES), 4 unclear, 0 without a depth."""
    own, _, _ = look(world, agent, frame, agent, 0)
    seen = [look(world, agent, frame, other, 0)[0] for other in range(world.agents) if other != agent]
    best = np.max(seen, 0) if seen else np.full_like(own, UNSEEN)
    classes = np.full(own.shape, UNCLEAR_CLASS, np.uint8)
    classes[own == NOWHERE] = 0
    classes[own == SEEN] = CLASSES["own"]
    classes[(own == UNSEEN) & (best == SEEN)] = CLASSES["only_other"]
    classes[(own == UNSEEN) & (best == UNSEEN)] = CLASSES["nobody"]
    return classes


def measure_visibility(
    world: WindowTruth, videos: Mapping[str, np.ndarray], truth: np.ndarray
) -> tuple[dict[str, dict[str, float | None]], dict[str, float]]:
    """Return psnr_<class> by row of videos [A, V, T, h, w, 3] against the true one, and each class's share.

    None for a class with fewer than FEWEST_PIXELS pixels in the window.
    """
    errors = {row: np.zeros(UNCLEAR_CLASS + 1) for row in videos}
    pixels = np.zeros(UNCLEAR_CLASS + 1)
    for frame in range(GIVEN_FRAMES, len(world.frames)):
        for agent in range(world.agents):
            classes = classify(world, agent, frame).ravel()
            pixels += np.bincount(classes, minlength=UNCLEAR_CLASS + 1)
            for row, video in videos.items():
                error = video[agent, :, frame] - truth[agent, :, frame]
                squared = np.einsum("...c,...c->...", error, error) / error.shape[-1]
                errors[row] += np.bincount(classes, squared.ravel(), UNCLEAR_CLASS + 1)
    figures = {
        row: {f"psnr_{name}": decibels(sums[code], pixels[code]) for name, code in CLASSES.items()}
        for row, sums in errors.items()
    }
    placed = pixels[1:].sum()
    shares = {f"share_{name}": float(pixels[code] / placed) for name, code in CLASSES.items()} if placed else {}
    return figures, shares


def decibels(error: float, pixels: float) -> float | None:
    """Return the PSNR of a summed squared error over so many pixels, None for too few."""
    if pixels < FEWEST_PIXELS:
        return None
    return float(min(HIGHEST_DB, -10 * np.log10(max(error / pixels, 1e-12))))
