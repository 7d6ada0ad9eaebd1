"""What an evaluation says: figures by name, what is missing and why, and a verdict in plain sentences."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from tasks.evaluation.measures.metrics import CONVENTION
from tasks.evaluation.measures.shared_world.figures import FIGURES
from tasks.evaluation.measures.statistics import Interval
from tasks.evaluation.scoring import scores as names
from tasks.evaluation.scoring.breakdown import Figure, by_group, worst_windows
from tasks.evaluation.scoring.exchange import WITHOUT, WITHOUT_ONE_STEP
from tasks.evaluation.scoring.score import SHUFFLES, Evaluation

LEARNED_DB = 0.5
"""How far above the better baseline a model must be at one step."""
LABELS = {
    names.GROUND_TRUTH: "recorded (ground truth)",
    names.CODEC: "codec round trip (ceiling)",
    names.FULL_STEPS: "model, {steps} steps",
    names.FOUR_STEPS: "model, 4 steps",
    names.ONE_STEP: "model, 1 step",
    WITHOUT: "without exchange, {steps} steps",
    WITHOUT_ONE_STEP: "without exchange, 1 step",
    names.COPY: "first frame, copied",
    names.BLUR: "first frame, blurred (sigma {sigma_px} px)",
    names.SHUFFLED_PAIRS: "another scene's video",
    names.SHUFFLED_RAYMAPS: "model, 1 step, another scene's raymaps",
}
METRICS = {"psnr": "PSNR, dB", "sharpness": "sharpness", "ssim": "SSIM", "lpips": "LPIPS",
           "temporal_flickering": "temporal flickering"}  # fmt: skip
HIGHER_IS_BETTER: dict[str, bool | None] = {
    "psnr": True, "ssim": True, "lpips": False, "temporal_flickering": None, "sharpness": None,
    **{name: about.higher_is_better for name, about in FIGURES.items()},
}  # fmt: skip
"""None: neither; a picture that stands still has the best flickering, and noise is sharp."""
STEPS_OF = {names.ONE_STEP: "1_step", names.FOUR_STEPS: "4_steps"}
LISTED_WORST = 8
ORDERS = {"1 step": (names.ONE_STEP, WITHOUT_ONE_STEP), "{steps} steps": (names.FULL_STEPS, WITHOUT)}
"""The model and the model without exchange, at so many steps."""


@dataclass
class Report:
    """report.json."""

    metrics: dict[str, float]
    missing: dict[str, str]
    verdict: list[str]
    mlflow_url: str
    convention: str
    checkpoint: str
    split: str
    clips: int
    counts: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    """One per row of the table: label, windows, and each metric's mean with its interval."""
    psnr_by_frame: dict[str, list[float]] = field(default_factory=dict)
    psnr_by_group: dict[str, dict[str, dict[str, Figure]]] = field(default_factory=dict)
    orders: dict[str, dict[str, bool]] = field(default_factory=dict)
    """By metric and steps: does it put ceiling, model, model without exchange and shuffled pairs in this order."""
    worst: list[dict[str, Any]] = field(default_factory=list)
    """The windows in which the model is worst: where they lie, and the PSNR of each row."""


def metric_name(row: str, metric: str, prefix: str) -> str:
    """Return the name in MLflow, e.g. eval/psnr, eval/psnr_1_step, eval/codec/psnr."""
    if row == names.FULL_STEPS:
        return f"{prefix}/{metric}"
    if row in STEPS_OF:
        return f"{prefix}/{metric}_{STEPS_OF[row]}"
    if row == names.SHUFFLED_RAYMAPS:
        return f"{prefix}/{metric}_1_step_shuffled_raymaps"
    return f"{prefix}/{row}/{metric}"


def label_of(row: str, evaluation: Evaluation) -> str:
    label = LABELS.get(row, row.replace("_", " "))
    return label.format(steps=evaluation.steps, sigma_px=f"{evaluation.sigma_px:g}")


def ordered_rows(evaluation: Evaluation) -> list[str]:
    """Return the rows that were scored: those of LABELS first, in that order."""
    scored = evaluation.scores.rows()
    return [row for row in LABELS if row in scored] + [row for row in scored if row not in LABELS]


def figures(evaluation: Evaluation, prefix: str) -> dict[str, float]:
    """Return every row's means by name."""
    scores, metrics = evaluation.scores, {}
    for row in ordered_rows(evaluation):
        for metric in scores.metrics(row):
            if is_informative(row, metric):
                metrics[metric_name(row, metric, prefix)] = scores.mean(row, metric)
                if row == names.FULL_STEPS and evaluation.steps == names.FEW_STEPS:
                    metrics[metric_name(names.FOUR_STEPS, metric, prefix)] = scores.mean(row, metric)
    metrics[f"{prefix}/{names.BLUR}/sigma_px"] = evaluation.sigma_px
    return metrics


def is_informative(row: str, metric: str) -> bool:
    """Tell whether a figure says anything: the PSNR (infinite), SSIM (1) and LPIPS (0) of a video and itself do not."""
    return row != names.GROUND_TRUTH or metric not in names.TRIVIAL


def better_baseline(evaluation: Evaluation) -> str:
    return max((names.COPY, names.BLUR), key=lambda row: evaluation.scores.mean(row, "psnr"))


def by_rollout_window(row: dict[str, Any], name: str) -> list[Figure | None]:
    """Return a row's figure of drift.BY_WINDOW for the windows 1, 2, ... of a rollout; None where it has none."""
    numbers = [int(metric.rsplit("_", 1)[1]) for metric in row if re.fullmatch(rf"{name}_\d+", metric)]
    return [row.get(f"{name}_{number}") for number in range(1, max(numbers, default=0) + 1)]


def with_interval(metrics: dict[str, float], name: str, interval: Interval) -> None:
    metrics |= {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}


def gain_sentence(evaluation: Evaluation, gain: Interval | None) -> str:
    """Say whether the model beats the first frame, copied or blurred."""
    scores, steps = evaluation.scores, evaluation.steps
    mean = {row: scores.mean(row, "psnr") for row in (names.ONE_STEP, names.FULL_STEPS, names.COPY, names.BLUR)}
    above = mean[names.ONE_STEP] - max(mean[names.COPY], mean[names.BLUR])
    interval = f"{above:+.2f} dB" + (f" [{gain.low:+.2f}, {gain.high:+.2f}]" if gain else " (no interval: one scene)")
    margin = (
        f"{LEARNED_DB} dB or more above, so it has learned" if above >= LEARNED_DB else f"NOT {LEARNED_DB} dB above"
    )
    return (
        f"PSNR is {mean[names.ONE_STEP]:.2f} dB at 1 step ({steps} steps: {mean[names.FULL_STEPS]:.2f}). The first "
        f"frame has {mean[names.COPY]:.2f} dB copied and {mean[names.BLUR]:.2f} dB blurred (sigma "
        f"{evaluation.sigma_px:g} px). Over the better of the two: {interval}, {margin}."
    )


def cameras_sentence(drop: Interval | None) -> str:
    """Say whether the model uses its cameras."""
    if drop is None:
        return "Another scene's raymaps were not tried, the split has one scene: it is NOT shown that cameras are used."
    shown = "cameras are used" if drop.low > 0 else "it is NOT shown that cameras are used"
    cost = f"{drop.mean:.2f} dB [{drop.low:.2f}, {drop.high:.2f}]"
    return f"Another scene's raymaps cost {cost} at 1 step: {shown}."


def exchange_sentence(evaluation: Evaluation, metrics: dict[str, float], prefix: str) -> str:
    """Compare with the run without exchange, and keep the differences as figures."""
    scores, said = evaluation.scores, []
    for label, row, other in (
        ("1 step", names.ONE_STEP, WITHOUT_ONE_STEP),
        ("{steps} steps", names.FULL_STEPS, WITHOUT),
    ):
        gain = scores.interval(row, "psnr", minus=other)
        with_interval(metrics, metric_name(row, "psnr_gain_exchange", prefix), gain)
        shown = "shown" if gain.low > 0 else "NOT shown"
        steps = label.format(steps=evaluation.steps)
        said.append(f"{gain.mean:+.2f} dB [{gain.low:+.2f}, {gain.high:+.2f}] at {steps} (a gain is {shown})")
    return (
        f"Compared with the run without exchange, window by window: {', '.join(said)}. With one seed each and ordinary "
        "clips this does not prove that agents exchange anything."
    )


def scope_sentence(evaluation: Evaluation, counts: dict[str, Any], train_steps: int) -> str:
    """Say what was scored, how much of it, and whether the training had ended."""
    text = (
        f"Scored on the {evaluation.split} split, towns never trained on ({', '.join(counts['towns'])}): "
        f"{counts['windows']} windows from {counts['clips']} clips of {counts['scenes']} scenes. "
        "Intervals are 95 %, over scenes."
    )
    if counts["windows_at_full_steps"] < counts["windows"]:
        text += f" At {evaluation.steps} steps: {counts['windows_at_full_steps']} windows, spread over the recordings."
    if evaluation.left_out:
        text += f" {evaluation.left_out} more windows were left out, evenly over the recordings."
    if counts["trained_steps"] < train_steps:
        text += f" The training has not ended: step {counts['trained_steps']} of {train_steps}."
    return text


def counted(evaluation: Evaluation, trained_steps: int) -> dict[str, Any]:
    windows = evaluation.scores.windows.values()
    return {
        "windows": len(windows),
        "windows_at_full_steps": evaluation.scores.count(names.FULL_STEPS),
        "windows_left_out": evaluation.left_out,
        "clips": len({window.row["key"] for window in windows}),
        "recordings": len({window.row["recording_id"] for window in windows}),
        "scenes": len({window.scene for window in windows}),
        "towns": sorted({window.row["town"] for window in windows}),
        "sampling_steps": evaluation.steps,
        "trained_steps": trained_steps,
        "raymap_shuffles": SHUFFLES,
    }


def orders(evaluation: Evaluation) -> dict[str, dict[str, bool]]:
    """Return by metric and steps whether ceiling, model, model without exchange and shuffled pairs are in this order.

    Their means are over the windows that all of them have, which are fewer at full steps.
    """
    scores = evaluation.scores
    found: dict[str, dict[str, bool]] = {}
    for metric, higher in HIGHER_IS_BETTER.items():
        ceilings = [row for row in (names.GROUND_TRUTH, names.CODEC)
                    if (row, metric) in scores.arrays and is_informative(row, metric)]  # fmt: skip
        ends = [*ceilings[:1], *[row for row in (names.SHUFFLED_PAIRS,) if (row, metric) in scores.arrays]]
        for steps, models in ORDERS.items():
            between = [row for row in models if (row, metric) in scores.arrays]
            if higher is None or len(ends) < 2 or not between:
                continue
            values = scores.means((ends[0], *between, ends[1]), metric)
            if values:
                holds = all(better > worse if higher else better < worse for better, worse in pairwise(values))
                found.setdefault(metric, {})[steps.format(steps=evaluation.steps)] = holds
    return found


def worst(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return the windows in which the model is worst, with every row's PSNR."""
    scores = evaluation.scores
    rows = [row for row in ordered_rows(evaluation) if (row, "psnr") in scores.arrays and row != names.GROUND_TRUTH]
    lines = []
    for window in worst_windows(scores, names.FULL_STEPS, LISTED_WORST):
        psnr = {row: float(scores.arrays[row, "psnr"][window.name].mean()) for row in rows
                if window.name in scores.arrays[row, "psnr"]}  # fmt: skip
        place = {title: str(window.row[column]) for title, column in names.GROUPED_BY.items()}
        lines.append({"window": window.name, **place, "psnr": psnr})
    return lines


def make_report(
    evaluation: Evaluation,
    *,
    trained_steps: int,
    train_steps: int,
    mlflow_url: str,
    distance_m: Mapping[str, np.ndarray] | None = None,
) -> Report:
    """Turn an evaluation into figures and sentences; names begin with eval/ (test split) or eval_<split>/.

    `distance_m`: by window, each agent's distance [A, T] to the other in the scored frames.
    """
    prefix = "eval" if evaluation.split == "test" else f"eval_{evaluation.split}"
    scores = evaluation.scores
    metrics, missing = figures(evaluation, prefix), dict(evaluation.missing)
    counts = counted(evaluation, trained_steps)
    gain = drop = None
    if counts["scenes"] > 1:
        gain = scores.interval(names.ONE_STEP, "psnr", minus=better_baseline(evaluation))
        drop = scores.interval(names.ONE_STEP, "psnr", minus=names.SHUFFLED_RAYMAPS)
        with_interval(metrics, f"{prefix}/psnr_gain_1_step", gain)
        with_interval(metrics, f"{prefix}/psnr_drop_shuffled_raymaps", drop)
    else:
        for name in ("psnr_gain_1_step", "psnr_drop_shuffled_raymaps"):
            missing[name] = "not measured: an interval needs two scenes and the split has one"
    verdict = [
        scope_sentence(evaluation, counts, train_steps),
        gain_sentence(evaluation, gain),
        cameras_sentence(drop),
    ]
    if WITHOUT in scores.rows() and counts["scenes"] > 1:
        verdict.append(exchange_sentence(evaluation, metrics, prefix))
    compared = [row for row in ordered_rows(evaluation) if "psnr" in scores.metrics(row) and row != names.GROUND_TRUTH]
    return Report(
        metrics=metrics,
        missing=missing,
        verdict=verdict,
        mlflow_url=mlflow_url,
        convention=CONVENTION,
        checkpoint=str(evaluation.checkpoint),
        split=evaluation.split,
        clips=counts["clips"],
        counts=counts,
        rows=[table_row(evaluation, row) for row in ordered_rows(evaluation)],
        psnr_by_frame={row: scores.by_frame(row) for row in compared},
        psnr_by_group={row: by_group(scores, row, distance_m) for row in compared},
        orders=orders(evaluation),
        worst=worst(evaluation),
    )


def table_row(evaluation: Evaluation, row: str) -> dict[str, Any]:
    """Return a row's label and figures, with intervals where there are two scenes or more."""
    scores = evaluation.scores
    count = max(len(scores.arrays[row, metric]) for metric in scores.metrics(row))
    line: dict[str, Any] = {"row": row, "windows": count, "label": label_of(row, evaluation)}
    several = len({window.scene for window in scores.windows.values()}) > 1
    for metric in scores.metrics(row):
        if not is_informative(row, metric):
            continue
        line[metric] = {"mean": scores.mean(row, metric)}
        if several:
            interval = scores.interval(row, metric)
            line[metric] |= {"low": interval.low, "high": interval.high}
    return line


def write_tables(evaluation: Evaluation, report: Report, folder: Path) -> None:
    """Write report.json and windows.csv, which has one line per window and row."""
    (folder / "report.json").write_text(json.dumps(report.__dict__, indent=1, allow_nan=False))
    lines = evaluation.scores.table()
    columns = list(dict.fromkeys(column for line in lines for column in line))
    with open(folder / "windows.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(lines)
