"""What an entry knows of a fact that only its partner saw."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from tasks.benchmark.detector import CANNOT_TELL, Detector
from tasks.benchmark.entries import Entry, generated
from tasks.benchmark.errors import BenchmarkError
from tasks.benchmark.intervals import paired_interval, share_interval
from tasks.benchmark.scenes import BenchScenes
from tasks.evaluation.metrics import GIVEN_FRAMES, HIGHEST_DB, front_of, psnr, views_of
from tasks.evaluation.statistics import Interval, donors

FIGURES = ("accuracy", "accuracy_decided", "accuracy_uninformative", "partner_swap_accuracy", "follows", "keeps")


@dataclass(frozen=True, eq=False)
class Outcome:
    """One entry on N scenes, each with its twin; labels are CANNOT_TELL where the detector can't."""

    entry: str
    scenes: BenchScenes = field(repr=False)
    read: torch.Tensor
    """[N, 2]: what the observer's video shows, of the scene and of its twin."""
    counterfactual: torch.Tensor
    """[N]: the scene with its partner's inputs from the twin, same noise."""
    swapped: torch.Tensor | None
    """[N, 2]: scene and twin with the partner of another scene; None where the entry takes none."""
    exact_change: float
    """Largest absolute change of the observer's pixels, in [-1, 1], when the partner's inputs are the twin's."""
    psnr: torch.Tensor
    """[N, 2] dB of the observer's clip, over frames and views without frame 0."""
    psnr_fact: torch.Tensor
    """[N, 2] dB inside the fact's pixels; nan where there are none."""
    videos: torch.Tensor = field(repr=False)
    """[N, 3, T, H, W]: the observer's."""
    counterfactual_videos: torch.Tensor = field(repr=False)
    missing: dict[str, str] = field(default_factory=dict)
    """What could not be measured -> why."""

    def shares(self, name: str) -> np.ndarray:
        """Return one share a scene of "accuracy" (also "_uninformative", "partner_swap_"), "follows" or "keeps".

        "accuracy_decided" is of the clips alone that the detector could read, over the scenes that have one.
        BenchmarkError for what was not measured.
        """
        if name in self.missing:
            raise BenchmarkError(f"{name} of {self.entry} was not measured: {self.missing[name]}")
        scenes, informed = self.scenes, self.scenes.informative
        own, new = scenes.labels.unbind(1)
        values = {
            "accuracy": self.read == scenes.labels,
            "accuracy_decided": self.read == scenes.labels,
            "accuracy_uninformative": self.read == scenes.labels,
            "partner_swap_accuracy": self.read if self.swapped is None else self.swapped == scenes.labels,
            "follows": (self.counterfactual == new)[:, None],
            "keeps": (self.counterfactual == own)[:, None],
        }[name]
        chosen = ~informed if name == "accuracy_uninformative" else informed
        if name != "accuracy_decided":
            return values[chosen].double().mean(1).numpy()
        decided = (self.read != CANNOT_TELL)[chosen]
        shares = (values[chosen] & decided).sum(1) / decided.sum(1)
        return shares[decided.any(1)].double().numpy()

    def interval(self, name: str) -> Interval:
        """Return the mean and 95 % interval of what `shares` gives."""
        return share_interval(self.shares(name))

    def metrics(self) -> dict[str, float]:
        """Return what was measured by flat names; what was not is left out and has its reason in `missing`.

        Over the scenes that the partner can inform, but for `accuracy_uninformative` and `cannot_tell`, the share of
        all clips that the detector leaves open (they count as not right). `neither` holds these too.
        """
        found: dict[str, float] = {}
        for name in FIGURES:
            if name not in self.missing:
                interval = self.interval(name)
                found |= {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
        informed = self.scenes.informative
        return found | {
            "neither": 1 - found["follows"] - found["keeps"],
            "chance": 1 / self.scenes.alternatives,
            "scenes": float(informed.sum()),
            "fact_cells": float(self.scenes.cells[informed].mean()),
            "cannot_tell": float((self.read == CANNOT_TELL).double().mean()),
            "psnr": float(self.psnr[informed].mean()),
            "psnr_fact": float(self.psnr_fact[informed].nanmean()),
            "exact_change": self.exact_change,
        }


def score(entry: Entry, scenes: BenchScenes, detector: Detector, *, swap: bool = True) -> Outcome:
    """Score an entry on scenes and their twins, each against its own truth, so that the labels balance.

    Without `swap` no partner is exchanged, which saves half of the work.

    BenchmarkError for an entry whose videos have another shape or range, for a detector of other scenes, and when the
    partner is informed in no scene.
    """
    if detector.scenes is not scenes:
        raise BenchmarkError("the detector was calibrated on other scenes: calibrate it on those that are scored.")
    if not scenes.informative.any():
        raise BenchmarkError("the partner sees the fact in none of the scenes: there is nothing that it could pass on.")
    observer, names = scenes.observer, scenes.names

    def observed(first: torch.Tensor, c2w: torch.Tensor) -> torch.Tensor:
        return generated(entry, first, scenes.K, c2w, names)[:, observer]

    videos = observed(scenes.first, scenes.c2w)
    first, c2w = with_partner(scenes, scenes.twin_first), with_partner(scenes, scenes.twin_c2w, cameras=True)
    counterfactual = observed(first, c2w)
    same = torch.equal(first, scenes.twin_first) and torch.equal(c2w, scenes.twin_c2w)
    twin_videos = counterfactual if same else observed(scenes.twin_first, scenes.twin_c2w)
    missing = {}
    swapped = None
    if not swap:
        missing["partner_swap_accuracy"] = "it was not asked for."
    elif not entry.takes_any_partner:
        missing["partner_swap_accuracy"] = "takes no partner of another scene"
    elif len(scenes) < 2:
        missing["partner_swap_accuracy"] = "there is no other scene to take a partner from."
    else:
        swapped = torch.stack([detector.read(observed(*inputs)) for inputs in swaps(scenes)], 1)
    read = torch.stack([detector.read(videos), detector.read(twin_videos)], 1)
    if (read[scenes.informative] == CANNOT_TELL).all():
        missing["accuracy_decided"] = "the detector can read none of the videos."
    if scenes.informative.all():
        missing["accuracy_uninformative"] = "the partner sees the fact in every scene."
    pairs = (videos, scenes.truth[:, observer]), (twin_videos, scenes.twin_truth[:, observer])
    return Outcome(
        entry.name,
        scenes,
        read,
        detector.read(counterfactual),
        swapped,
        float((counterfactual - videos).abs().max()),
        torch.stack([clip_psnr(made, truth, scenes.c2w.shape[2]) for made, truth in pairs], 1),
        torch.stack([fact_psnr(made, truth, scenes.masks) for made, truth in pairs], 1),
        videos,
        counterfactual,
        missing,
    )


def with_partner(scenes: BenchScenes, partners: torch.Tensor, *, cameras: bool = False) -> torch.Tensor:
    """Return the scenes' first frames, or cameras, [N, A, ...] with the partner's taken from `partners` [N, A, ...]."""
    inputs = (scenes.c2w if cameras else scenes.first).clone()
    inputs[:, scenes.partner] = partners[:, scenes.partner]
    return inputs


def swaps(scenes: BenchScenes) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return first frames and cameras of scene and twin, the partner's from the next scene in a ring.

    A partner is put where it stood as seen from its own scene's observer at frame 0: towns lie anywhere on a map.
    """
    giving = donors(scenes.names)
    anchors = scenes.c2w[:, scenes.observer, 0, 0]
    moved = (anchors @ torch.linalg.inv(anchors[giving]))[:, None, None, None]
    return [
        (with_partner(scenes, first[giving]), with_partner(scenes, moved @ c2w[giving], cameras=True))
        for first, c2w in ((scenes.first, scenes.c2w), (scenes.twin_first, scenes.twin_c2w))
    ]


def clip_psnr(made: torch.Tensor, truth: torch.Tensor, views: int) -> torch.Tensor:
    """Return PSNR in dB [N] of videos [N, 3, T, H, W]: the mean over frames from 1 on and views (see metrics.py)."""
    cut = views_of if views == 4 else front_of
    return psnr(cut(made[:, None]), cut(truth[:, None]))[..., GIVEN_FRAMES:].flatten(1).mean(1)


def fact_psnr(made: torch.Tensor, truth: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Return PSNR in dB [N] over the pixels of masks [N, S, T, H, W]; nan where there are none."""
    weights = masks.any(1)[:, None].float()
    squared = (((made - truth) / 2).square() * weights).sum((1, 2, 3, 4)) / (3 * weights.sum((1, 2, 3, 4)))
    return (-10 * squared.log10()).clamp(max=HIGHEST_DB)


def difference(name: str, one: Outcome, other: Outcome) -> Interval:
    """Return `name` of one arm minus that of another on the same scenes, paired by scene, with its 95 % interval.

    `name` as in `Outcome.shares`. BenchmarkError for outcomes of other scenes.
    """
    if one.scenes.names != other.scenes.names:
        raise BenchmarkError(f"{one.entry} and {other.entry} were scored on other scenes: score them on the same.")
    return paired_interval(one.shares(name), other.shares(name))
