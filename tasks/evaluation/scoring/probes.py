"""What the model makes of another partner's picture, swapped agents, a changed world.

At one sampling step, which gives the conditional mean: what the model knows, without the noise of sampling.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from tasks.evaluation.measures.shared_world.counterfactual import response
from tasks.evaluation.measures.shared_world.swap import pooled_psnr, swapped
from tasks.evaluation.measures.statistics import donors
from tasks.evaluation.scoring import scores as names
from tasks.evaluation.scoring.sampling import Sampler
from tasks.evaluation.scoring.scores import Scores
from tasks.evaluation.scoring.windows import Windows, balanced

ToViews = Callable[[torch.Tensor], torch.Tensor]
"""Videos [N, A, 3, T, H, W] in [-1, 1] to views [N, A, V, T, 3, h, w] in [0, 1]."""
OF_PARTNERS = ("swap_psnr", "partner_gain_only_other")
ALONE = "not measured: one agent alone has no partner"
MOST_COUNTERFACTUALS = 27


def with_stranger(
    sampler: Sampler, windows: Windows, indices: Sequence[int], first: torch.Tensor, strangers: torch.Tensor
) -> torch.Tensor:
    """Generate each agent's video with another scene's first frames in place of all its partners'.

    first, strangers [N, A, 3, H, W] in [-1, 1]; returns videos [N, A, 3, T, H, W], each agent's from its own take.
    """
    raymaps, labels = windows.raymaps(indices), [windows[index].name for index in indices]
    videos = []
    for agent in range(first.shape[1]):
        given = strangers.clone()
        given[:, agent] = first[:, agent]
        videos.append(sampler.generate(given, raymaps, labels, 1)[:, agent])
    return torch.stack(videos, 1)


def swap_figures(
    sampler: Sampler,
    windows: Windows,
    indices: Sequence[int],
    first: torch.Tensor,
    video: torch.Tensor,
    to_views: ToViews,
) -> list[dict[str, float]]:
    """Return swap_psnr and noise_psnr of each window: `video` is what the same first frames gave, in order."""
    labels = [windows[index].name for index in indices]
    noise = sampler.noise(labels, first.shape[1])
    turned = sampler.generate(swapped(first), windows.raymaps(indices, swapped=True), labels, 1, noise=swapped(noise))
    again = sampler.generate(first, windows.raymaps(indices), [f"{label} again" for label in labels], 1)
    views = to_views(video)
    by_swap, by_noise = pooled_psnr(to_views(swapped(turned)), views), pooled_psnr(to_views(again), views)
    return [{"swap_psnr": float(one), "noise_psnr": float(other)} for one, other in zip(by_swap, by_noise, strict=True)]


def variant_pairs(windows: Windows) -> list[tuple[int, int, int]]:
    """Return (index of the base, index of its variant, observer) of one moment of a scene, equal cameras for the
    observer."""
    index_of = {(window.moment, window.row["variant"]): index for index, window in enumerate(windows)}
    pairs = []
    for (moment, variant), index in index_of.items():
        base = index_of.get((moment, "base"))
        if variant == "base" or base is None:
            continue
        here, there = (windows.cameras[windows[p].row["key"]].c2w for p in (base, index))
        span = slice(windows[index].start, windows[index].start + windows.frames)
        for agent in range(len(here)):
            if (here[agent][:, span] == there[agent][:, span]).all():
                pairs.append((base, index, agent))
                break
    return pairs


def counterfactuals(sampler: Sampler, windows: Windows, scores: Scores, to_views: ToViews) -> dict[str, str]:
    """Score how the model follows the changes between recordings of one scene; return what is missing and why."""
    pairs = variant_pairs(windows)
    if not pairs:
        return {"counterfactual_response": "not measured: the split has no two recordings of one scene in which one "
                "agent drives the same way (plan with other_trajectories)"}  # fmt: skip
    scenes, measured = [windows[base].scene for base, _, _ in pairs], False
    ring = donors(scenes) if len(set(scenes)) > 1 else None
    kept = balanced(scenes, MOST_COUNTERFACTUALS)
    for position in kept:
        base, other, observer = pairs[position]
        video = windows.video([base, other])
        label = windows[base].name
        one_step = sampler.generate(video[:, :, :, 0], windows.raymaps([base, other]), [label, label], 1)
        rows = {
            names.GROUND_TRUTH: video, names.ONE_STEP: one_step, names.CODEC: sampler.round_trip(video),
            names.COPY: video[:, :, :, :1].expand_as(video),
        }  # fmt: skip
        if ring is not None:
            rows[names.SHUFFLED_PAIRS] = windows.video(pairs[ring[position]][:2])
        views = {row: to_views(video)[:, observer].movedim(-3, -1).numpy() for row, video in rows.items()}
        truth = views[names.GROUND_TRUTH]
        for row, (first, second) in views.items():
            figures = response(first, second, *truth)
            scores.put_figures(row, windows[base], figures)
            measured |= any(value is not None for value in figures.values())
    if not measured:
        return {"counterfactual_response": f"not measured: in none of {len(kept)} pairs of recordings of one scene "
                "does the observer see enough of the change"}  # fmt: skip
    return {}
