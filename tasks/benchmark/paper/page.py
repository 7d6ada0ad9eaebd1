"""The paper's ablations as a table in Markdown and as a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from infra.storage import atomic_file
from tasks.benchmark.paper.score import METRICS, PaperScore, by_scene, figure_name, steps_row
from tasks.benchmark.paper.study import COMPARISONS, SWITCHES, PaperStudy
from tasks.benchmark.paper.verdict import by_arm, figure_difference, figures_compared, sentences
from tasks.evaluation.measures.metrics import CONVENTION
from tasks.evaluation.report.page import Cell, Estimate, Row, Section, Table, Text, render

PAGE_FILE = "paper-ablations.html"
"""After the size: a comparison of fewer seeds does not take the place of one of more."""
DIGITS = {"psnr": 3, "ssim": 4}
WHAT = (
    "Trainings that differ in one switch, on one data set, scored on the windows of held-out towns; every arm gets the "
    "same windows and is compared with the base of its own seed, window by window. Four views against the front view "
    "alone: on front views only, both brought to the smaller of the two sizes by averaging areas."
)
HOW = (
    "A difference is the base minus the other arm; its 95 % interval is over scenes, of which the windows of one "
    "recording are one. Each window's difference is averaged over the seeds first: the interval does not hold what "
    "further trainings would add, so the seeds must agree in sign besides."
)


def columns(study: PaperStudy) -> list[str]:
    """Return the names of all figures of an arm, those at one sampling step before those at more."""
    rows = [*map(steps_row, study.sampling_steps), "copy", "codec"]
    return [figure_name(metric, row, front) for front in (False, True) for metric in METRICS for row in rows]


def arm_estimates(study: PaperStudy, scores: Sequence[PaperScore]) -> dict[str, dict[str, Estimate]]:
    """Return each arm's figures by name, a window's averaged over the seeds; an arm lacks what it does not generate."""
    known, estimates = by_arm(scores), {}
    for arm in SWITCHES:
        seeds = [known[arm, seed] for seed in study.seeds]
        estimates[arm] = {
            name: estimate(by_scene({window: float(np.mean([score.figures[name][window] for score in seeds]))
                                     for window in seeds[0].figures[name]}, seeds[0].scenes), name)
            for name in columns(study) if name in seeds[0].figures
        }  # fmt: skip
    return estimates


def estimate(interval: Any, figure: str) -> Estimate:
    """Return an interval with as many digits as its figure is worth."""
    return Estimate(interval.mean, interval.low, interval.high, DIGITS["ssim" if "ssim" in figure else "psnr"])


def markdown(study: PaperStudy, scores: Sequence[PaperScore]) -> str:
    """Return the arms' figures as a Markdown table with the sentences below it."""
    names, estimates = columns(study), arm_estimates(study, scores)
    lines = ["| arm | " + " | ".join(names) + " |", "|" + "---|" * (len(names) + 1)]
    for arm, found in estimates.items():
        lines.append("| " + " | ".join([arm, *(plain(found.get(name)) for name in names)]) + " |")
    return "\n".join([*lines, "", *(f"- {line}" for line in sentences(study, scores))])


def plain(found: Estimate | None) -> str:
    if found is None:
        return "–"
    return f"{found.mean:.{found.digits}f} [{found.low:.{found.digits}f}, {found.high:.{found.digits}f}]"


def comparison_rows(study: PaperStudy, scores: Sequence[PaperScore]) -> list[Row]:
    """Return one line per comparison and figure: over the seeds, and each seed's."""
    known, rows = by_arm(scores), []
    for comparison in COMPARISONS:
        for name in (name for metric in METRICS for name in figures_compared(comparison, study, metric)):
            found = figure_difference(comparison, name, known, study.seeds)
            cells: list[Cell] = [name, estimate(found.together, name)]
            cells += [estimate(found.by_seed[seed], name) for seed in study.seeds]
            rows.append(Row(comparison.question, cells, strong=found.stands))
    return rows


def write_paper_page(study: PaperStudy, scores: Sequence[PaperScore], size: str, folder: Path) -> Path:
    """Write the page of a size of the comparison to `folder`; return its path."""
    names, estimates = columns(study), arm_estimates(study, scores)
    seeds = [f"seed {seed}" for seed in study.seeds]
    sections: list[Section] = [
        Text([WHAT, HOW], heading="What is compared"),
        Text(sentences(study, scores), heading="In words", tone="verdict"),
        Table(["base against", "figure", "over the seeds", *seeds], comparison_rows(study, scores),
              heading="Differences", note="Set off: what holds by interval and seeds. PSNR in dB."),
        Table(["figure", *estimates], [Row(name, [found.get(name) for found in estimates.values()]) for name in names],
              heading="Figures", note="copy: the first frame stands still; codec: encoded and decoded, the ceiling."),
        Text([CONVENTION], heading="Convention", tone="quiet"),
    ]  # fmt: skip
    subtitle = f"data set {study.dataset}, preset {study.preset.name}, split test"
    page = folder / f"{size}-{PAGE_FILE}"
    with atomic_file(page) as path:
        path.write_text(render("The paper's ablations", sections, subtitle=subtitle))
    return page
