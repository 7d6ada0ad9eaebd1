"""What an entry knows of a fact that only its partner saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from tasks.benchmark.detector import CANNOT_TELL, FactDetector
from tasks.benchmark.entries import Entry, generated
from tasks.benchmark.errors import BenchmarkError
from tasks.benchmark.intervals import paired_interval, share_interval
from tasks.benchmark.scenes import BenchScenes
from tasks.evaluation.measures.metrics import GIVEN_FRAMES, HIGHEST_DB, front_of, psnr, views_of
from tasks.evaluation.measures.statistics import Interval, cluster_interval, donors

FIGURES = (
    "accuracy", "accuracy_decided", "accuracy_uninformative", "accuracy_uninformative_decided", "partner_swap_accuracy",
    "follows", "keeps",
)  # fmt: skip
"""Shares of clips, by scene."""


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

    def by_scene(self, name: str) -> np.ndarray:
        """Return one value per scene: a share of FIGURES, or "psnr_fact" in dB, nan where the fact has no pixel.

        Over the scenes that the partner can inform, those named "_uninformative" over the others. "_decided": of the
        clips alone that the detector could read, over the scenes that have one. BenchmarkError for what was not
        measured.
        """
        if name in self.missing:
            raise BenchmarkError(f"{name} of {self.entry} was not measured: {self.missing[name]}")
        chosen = self.scenes.informative ^ ("_uninformative" in name)
        if name == "psnr_fact":
            return self.psnr_fact[chosen].nanmean(1).double().numpy()
        own, new = self.scenes.labels.unbind(1)
        right = {
            "partner_swap_accuracy": self.read if self.swapped is None else self.swapped == self.scenes.labels,
            "follows": (self.counterfactual == new)[:, None],
            "keeps": (self.counterfactual == own)[:, None],
        }.get(name, self.read == self.scenes.labels)[chosen]
        if not name.endswith("_decided"):
            return right.double().mean(1).numpy()
        decided = (self.read != CANNOT_TELL)[chosen]
        some = decided.any(1)
        return ((right & decided).sum(1)[some] / decided.sum(1)[some]).double().numpy()

    def interval(self, name: str) -> Interval:
        """Return the mean and 95 % interval of a share."""
        return share_interval(self.by_scene(name))

    def metrics(self) -> dict[str, float]:
        """Return what was measured by flat names; what was not is left out and has its reason in `missing`.

        Over the scenes that the partner can inform, but for `accuracy_uninformative...` and `cannot_tell`, the share
        of all clips that the detector leaves open (they count as not right). `neither` holds these too.
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


def score_entry(entry: Entry, scenes: BenchScenes, detector: FactDetector, *, swap: bool = True) -> Outcome:
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
        missing["partner_swap_accuracy"] = "takes no partner"
    elif len(scenes) < 2:
        missing["partner_swap_accuracy"] = "there is no other scene to take a partner from."
    else:
        swapped = torch.stack([detector.read(observed(*inputs)) for inputs in swaps(scenes)], 1)
    read = torch.stack([detector.read(videos), detector.read(twin_videos)], 1)
    if scenes.informative.all():
        missing["accuracy_uninformative"] = "the partner sees the fact in every scene."
        missing["accuracy_uninformative_decided"] = missing["accuracy_uninformative"]
    for end, chosen in (("", scenes.informative), ("_uninformative", ~scenes.informative)):
        if chosen.any() and (read[chosen] == CANNOT_TELL).all():
            missing[f"accuracy{end}_decided"] = "the detector can read none of the videos."
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


def outcome_difference(name: str, ones: Sequence[Outcome], others: Sequence[Outcome]) -> Interval:
    """Return `name` (see `Outcome.by_scene`) of one arm minus that of another, paired by scene, and its 95 % interval.

    Several seeds of an arm are averaged by scene first: they are not independent. BenchmarkError for outcomes of other
    scenes.
    """
    names = ones[0].scenes.names
    for outcome in (*ones, *others):
        if outcome.scenes.names != names:
            raise BenchmarkError(
                f"{ones[0].entry} and {outcome.entry} were scored on other scenes: score them on the same."
            )
    one, other = (np.mean([outcome.by_scene(name) for outcome in some], 0) for some in (ones, others))
    if name in FIGURES:
        return paired_interval(one, other)
    apart = one - other
    return cluster_interval(apart[np.isfinite(apart)], np.array(names)[ones[0].scenes.informative][np.isfinite(apart)])
