"""Reads the fact from the observer's video, and says how often it is wrong itself.

appearance, binding: the mean colour of the fact's pixels against each colour's mean in all other scenes' recordings and
their codec round trips (no clip judges itself), in units of the spread within a colour. trajectory: which recording is
nearer inside the pixels of the other car, the scene's or its twin's; a recording is its own reference there, so that
only a scene whose two recordings hardly differ, and the codec's round trip, can fail the calibration.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch

from tasks.benchmark.errors import BenchmarkError
from tasks.benchmark.scenes import BenchScenes

CANNOT_TELL = -1
MARGIN = 0.05
"""Least (second - best) / (second + best) of the distances to the two nearest labels; below, it cannot tell."""
LEAST_PIXELS = 4
"""Fewer pixels of a vehicle tell nothing."""
LEAST_APART = 0.1
"""Task "trajectory": root mean square, of values in [-1, 1], by which the two recordings differ at the least."""
COLOUR_NOISE = 0.02
"""Spread of a colour that is assumed even where the ground truth has none."""
TRUTH_ACCURACY, ROUND_TRIP_ACCURACY = 0.98, 0.95

RoundTrip = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Calibration:
    """Share of clips, scenes and twins, that are read right and that it cannot tell."""

    truth_accuracy: float
    round_trip_accuracy: float
    truth_cannot_tell: float
    round_trip_cannot_tell: float

    def __str__(self) -> str:
        return (
            f"the detector reads {self.truth_accuracy:.1%} of the recordings right and {self.round_trip_accuracy:.1%} "
            f"of their codec round trips; it cannot tell {self.truth_cannot_tell:.1%} and "
            f"{self.round_trip_cannot_tell:.1%}"
        )


@dataclass(frozen=True)
class FactDetector:
    """Made by `calibrated`; reads videos of the scenes that it was calibrated on."""

    scenes: BenchScenes
    references: dict[str, torch.Tensor]
    """Mean RGB [N, 3] of each colour in all other scenes, with and without codec; empty in task "trajectory"."""
    spread: torch.Tensor
    """[N, 3, 3]: whitens RGB by the covariance within a colour, over all other scenes."""
    calibration: Calibration

    def read(self, videos: torch.Tensor) -> torch.Tensor:
        """Return labels [N] int64 of the observer's videos [N, 3, T, H, W] in [-1, 1], CANNOT_TELL where it can't."""
        return decided(distances(self.scenes, self.references, self.spread, videos), self.scenes)


def calibrated(scenes: BenchScenes, round_trip: RoundTrip) -> FactDetector:
    """Return a detector calibrated on the scenes and their twins, and on their codec round trips.

    `round_trip` encodes and decodes [N, A, 3, T, H, W] (`Sampler.round_trip`). BenchmarkError when it reads less than
    98 % of the recordings or 95 % of the round trips right: no score of it would mean anything.
    """
    pairs = [(scenes.truth, scenes.twin_truth), (round_trip(scenes.truth), round_trip(scenes.twin_truth))]
    coloured = scenes.task != "trajectory"
    references, spread = colour_references(scenes, *pairs) if coloured else ({}, torch.empty(0))
    needed = {"recordings": TRUTH_ACCURACY, "codec round trips": ROUND_TRIP_ACCURACY}
    shares = []
    for (name, least), pair in zip(needed.items(), pairs, strict=True):
        found = [distances(scenes, references, spread, part[:, scenes.observer]) for part in pair]
        read = torch.stack([decided(part, scenes) for part in found], 1)
        right, unsure = float((read == scenes.labels).float().mean()), float((read == CANNOT_TELL).float().mean())
        if right < least:
            raise BenchmarkError(
                f"the detector of {scenes.task} ({scenes.distance}) reads {right:.1%} of the {name} right and cannot "
                f"tell {unsure:.1%}, and {least:.0%} is the least: no score is given; record larger or clearer facts."
            )
        shares.append((right, unsure))
    (truth, truth_unsure), (trip, trip_unsure) = shares
    return FactDetector(scenes, references, spread, Calibration(truth, trip, truth_unsure, trip_unsure))


def slot_colours(videos: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Return the mean RGB [N, S, 3] in [0, 1] of videos [N, 3, T, H, W] in masks [N, S, T, H, W]; nan where empty."""
    weights = masks.flatten(2).to(videos.dtype)
    sums = torch.einsum("ncp,nsp->nsc", (videos.flatten(2) + 1) / 2, weights)
    return sums / weights.sum(2, keepdim=True)


def colours_of(scenes: BenchScenes, place: int, label: int) -> list[str]:
    """Return the colour that each mask of a scene shows under a label."""
    colours = scenes.facts[place]["colors"]
    if scenes.task == "appearance":
        return [colours[label]]
    return [colours[0], colours[1]] if label == 0 else [colours[1], colours[0]]


def colour_references(
    scenes: BenchScenes, *pairs: tuple[torch.Tensor, torch.Tensor]
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Return each colour's mean and the whitening within colours, for each scene from all others.

    `pairs`: videos [N, A, 3, T, H, W] of the scenes and of their twins.
    """
    observed = [[slot_colours(videos[:, scenes.observer], scenes.masks).double() for videos in pair] for pair in pairs]
    names = sorted({colour for fact in scenes.facts for colour in fact["colors"]})
    sums = torch.zeros(len(scenes), len(names), 3, dtype=torch.float64)
    counts = torch.zeros(len(scenes), len(names), 1, dtype=torch.float64)
    squares = torch.zeros(len(scenes), len(names), 3, 3, dtype=torch.float64)
    for place in range(len(scenes)):
        for pair, variant in itertools.product(observed, range(2)):
            for slot, colour in enumerate(colours_of(scenes, place, int(scenes.labels[place, variant]))):
                value, number = pair[variant][place, slot], names.index(colour)
                if value.isfinite().all():
                    sums[place, number] += value
                    squares[place, number] += torch.outer(value, value)
                    counts[place, number] += 1
    others = counts.sum(0) - counts
    if (others == 0).any():
        number = int((others[..., 0] == 0).any(0).nonzero()[0])
        raise BenchmarkError(
            f"colour {names[number]} is seen in one scene or none, and no clip may judge itself: take more scenes."
        )
    means = (sums.sum(0) - sums) / others
    around = means[..., None] * means[..., None, :]
    scatter = squares.sum(0) - squares - others[..., None] * around
    covariance = scatter.sum(1) / others.sum(1, keepdim=True)
    covariance += COLOUR_NOISE**2 * torch.eye(3, dtype=torch.float64)
    whitening = torch.linalg.inv(torch.linalg.cholesky(covariance))
    return {name: means[:, number] for number, name in enumerate(names)}, whitening


def distances(
    scenes: BenchScenes, references: dict[str, torch.Tensor], spread: torch.Tensor, videos: torch.Tensor
) -> torch.Tensor:
    """Return how far each video is from each label, [N, L]; inf for a label that is no alternative of its scene."""
    found = torch.full((len(scenes), scenes.alternatives), torch.inf, dtype=torch.float64)
    if scenes.task == "trajectory":
        for variant, truth in enumerate((scenes.truth, scenes.twin_truth)):
            apart = apart_inside(videos, truth[:, scenes.observer], scenes.masks)
            found[torch.arange(len(scenes)), scenes.labels[:, variant]] = apart
        return found
    observed = slot_colours(videos, scenes.masks).double()
    for place in range(len(scenes)):
        for label in range(scenes.alternatives):
            expected = torch.stack([references[colour][place] for colour in colours_of(scenes, place, label)])
            found[place, label] = ((observed[place] - expected) @ spread[place].T).square().sum().sqrt()
    return found


def apart_inside(videos: torch.Tensor, others: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Return the root mean square difference [N] of videos [N, 3, T, H, W] in masks [N, 1, T, H, W]; nan if empty."""
    weights = masks.double()
    squared = (videos - others).double().square() * weights
    return (squared.sum((1, 2, 3, 4)) / weights.sum((1, 2, 3, 4)) / 3).sqrt()


def readable(scenes: BenchScenes) -> torch.Tensor:
    """Tell of each scene, [N] bool, whether its recordings show the fact so that it can be read."""
    seen = (scenes.masks.flatten(2).sum(2) >= LEAST_PIXELS).all(1)
    if scenes.task == "trajectory":
        one, other = (truth[:, scenes.observer] for truth in (scenes.truth, scenes.twin_truth))
        seen &= apart_inside(one, other, scenes.masks) >= LEAST_APART
    return seen


def decided(found: torch.Tensor, scenes: BenchScenes) -> torch.Tensor:
    """Return the nearest label [N] of distances [N, L], CANNOT_TELL where two are as near or nothing can be read."""
    nearest = found.nan_to_num(nan=torch.inf).topk(2, largest=False)
    best, second = nearest.values.unbind(1)
    clear = (second - best) > MARGIN * (second + best)
    return nearest.indices[:, 0].where(clear & readable(scenes), torch.tensor(CANNOT_TELL))
