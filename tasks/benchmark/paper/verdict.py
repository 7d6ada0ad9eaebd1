"""What the paper's ablations show, and which comparison proves nothing at this size (trap 39: ablations need
controls)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tasks.benchmark.errors import BenchmarkError
from tasks.benchmark.paper.score import METRICS, PaperScore, by_scene, figure_name, steps_row
from tasks.benchmark.paper.study import BASE, COMPARISONS, Comparison, PaperStudy
from tasks.evaluation.measures.statistics import Interval


@dataclass(frozen=True)
class Difference:
    """A figure of the base minus that of another arm on the same windows, seed by seed and over the seeds."""

    comparison: Comparison
    figure: str
    by_seed: dict[int, Interval]
    together: Interval
    """Each window's difference averaged over the seeds. The interval is over scenes: what another seed would give is
    not in it, hence the look at the seeds' signs."""

    @property
    def agreed(self) -> bool:
        """Tell whether all seeds have the sign of their mean."""
        return all(interval.mean * self.together.mean > 0 for interval in self.by_seed.values())

    @property
    def reasons(self) -> list[str]:
        """Return why it proves nothing; empty where it does."""
        found = []
        if self.together.low <= 0 <= self.together.high:
            found.append("the interval holds 0")
        if len(self.by_seed) < 2:
            found.append("one seed is no evidence, as another training may differ by more")
        elif not self.agreed:
            found.append("the seeds disagree in sign")
        return found

    @property
    def stands(self) -> bool:
        return not self.reasons


Scores = dict[tuple[str, int], PaperScore]
"""By arm and seed."""


def by_arm(scores: Sequence[PaperScore]) -> Scores:
    return {(score.arm.name, score.arm.seed): score for score in scores}


def paired(base: PaperScore, other: PaperScore, figure: str) -> dict[str, float]:
    """Return the difference window by window. BenchmarkError for other windows."""
    first, second = base.figures[figure], other.figures[figure]
    if first.keys() != second.keys():
        raise BenchmarkError(
            f"{base.arm} and {other.arm} were scored on other windows ({len(first)} and {len(second)}): remove their "
            "paper.json and score both again."
        )
    return {window: value - second[window] for window, value in first.items()}


def figure_difference(comparison: Comparison, figure: str, scores: Scores, seeds: Sequence[int]) -> Difference:
    """Compare a figure of the base with that of the other arm. BenchmarkError for other windows, or for one scene."""
    apart = {seed: paired(scores[BASE, seed], scores[comparison.other, seed], figure) for seed in seeds}
    scenes = scores[BASE, seeds[0]].scenes
    windows = list(apart[seeds[0]])
    mean = {window: float(np.mean([values[window] for values in apart.values()])) for window in windows}
    return Difference(
        comparison, figure, {seed: by_scene(values, scenes) for seed, values in apart.items()}, by_scene(mean, scenes)
    )


def in_db(interval: Interval) -> str:
    """Return a difference in words, to the thousandth: at small sizes they are that small."""
    return f"{interval.mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}] dB"


def figures_compared(comparison: Comparison, study: PaperStudy, metric: str) -> list[str]:
    """Return the names of the compared figures, one for each number of sampling steps, one step first."""
    return [figure_name(metric, steps_row(steps), comparison.front) for steps in study.sampling_steps]


def sentence(comparison: Comparison, study: PaperStudy, scores: Scores) -> str:
    """Return what a comparison shows in plain words. What contradicts the paper is said as such."""
    names = figures_compared(comparison, study, "psnr")
    apart = [figure_difference(comparison, name, scores, study.seeds) for name in names]
    first = apart[0]
    where = "front views at {1}x{0}".format(*study.front_size) if comparison.front else "all views"
    seeds = ", ".join(f"seed {seed} {interval.mean:+.3f}" for seed, interval in first.by_seed.items())
    beside = "".join(
        f"; at {steps} steps {in_db(other.together)}"
        for steps, other in zip(study.sampling_steps[1:], apart[1:], strict=True)
    )
    question = comparison.question[0].upper() + comparison.question[1:]
    told = f"{question}: {in_db(first.together)} on {where} at 1 sampling step ({seeds}{beside}). "
    return told + judgement(first, study, scores)


def squared_error(scores: Scores, arm: str, seeds: Sequence[int], figure: str) -> float:
    """Return an arm's mean squared error behind a PSNR, the mean over windows and seeds."""
    decibels = [value for seed in seeds for value in scores[arm, seed].figures[figure].values()]
    return float(np.mean(10 ** (-np.array(decibels) / 10)))


def codecs_doing(found: Difference, study: PaperStudy, scores: Scores) -> str:
    """Return why a difference may be the codecs' alone, nothing where their own errors differ by less than it."""
    codec = figure_name("psnr", "codec", found.comparison.front)
    models, codecs = (
        squared_error(scores, found.comparison.other, study.seeds, figure)
        - squared_error(scores, BASE, study.seeds, figure)
        for figure in (found.figure, codec)
    )
    if codecs and models * found.together.mean < 0:  # a few hard windows decide squared errors, all of them decibels
        return "decibels and squared errors disagree on which arm is better, and the codecs' own errors differ"
    if models * codecs <= 0 or abs(codecs) < abs(models):
        return ""
    arms = (BASE, found.comparison.other)
    ceilings = [scores[arm, study.seeds[0]].interval(codec).mean for arm in arms]
    return (
        f"the codecs' own errors differ by more than the arms' (round trips of {ceilings[0]:.1f} and {ceilings[1]:.1f} "
        "dB), which alone may decide"
    )


def judgement(found: Difference, study: PaperStudy, scores: Scores) -> str:
    """Return whether a difference counts, for or against the paper, and why not."""
    reasons = found.reasons
    if found.comparison.control and found.together.mean > 0:
        control = next(c for c in COMPARISONS if c.other == found.comparison.control)
        beside = figure_difference(control, found.figure, scores, study.seeds)
        if not (beside.stands and beside.together.mean > 0):
            reasons = [*reasons, (
                f"the control of equal capacity is as good (base minus {control.other}: {in_db(beside.together)}), so "
                "that a gain would not be owed to exchange between agents"
            )]  # fmt: skip
    if codecs := codecs_doing(found, study, scores):
        reasons = [*reasons, codecs]
    if reasons:
        leaning = " It leans AGAINST the paper." if found.together.mean < 0 else ""
        return f"PROVES NOTHING at this size: {'; '.join(reasons)}.{leaning}"
    if found.together.mean > 0:
        return "The base is better, which supports the paper."
    return f"CONTRADICTS the paper: arm {found.comparison.other!r} is better than the base."


def sentences(study: PaperStudy, scores: Sequence[PaperScore]) -> list[str]:
    """Return a sentence a comparison, and one on arms that are no better than a first frame that stands still."""
    known = by_arm(scores)
    lines = [sentence(comparison, study, known) for comparison in COMPARISONS]
    idle = [str(score.arm) for score in scores if score.interval("front_psnr").mean
            <= score.interval("front_psnr_copy").mean]  # fmt: skip
    if idle:
        lines.append(
            f"No better on front views than the first frame standing still: {'; '.join(idle)}. A comparison of models "
            "that have learned nothing says nothing."
        )
    return lines


def gains(study: PaperStudy, score: PaperScore, base: PaperScore) -> dict[str, float]:
    """Return the base's lead over an arm of the same seed by flat names, e.g. `base_lead_psnr`, with interval ends."""
    comparison = next(c for c in COMPARISONS if c.other == score.arm.name)
    found: dict[str, float] = {}
    for metric in METRICS:
        for figure in figures_compared(comparison, study, metric):
            lead = figure_difference(comparison, figure, by_arm([base, score]), [score.arm.seed]).together
            name = f"base_lead_{figure}"
            found |= {name: lead.mean, f"{name}_low": lead.low, f"{name}_high": lead.high}
    return found
