"""What an evaluation says: figures by name, what is missing and why, and a verdict in plain sentences."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.evaluation import scores as names
from tasks.evaluation.metrics import CONVENTION
from tasks.evaluation.score import SHUFFLES, Evaluation
from tasks.evaluation.statistics import Interval

LEARNED_DB = 0.5
"""How far above the better baseline a model must be at one step."""
LABELS = {
    names.GROUND_TRUTH: "recorded (ground truth)",
    names.CODEC: "codec round trip (ceiling)",
    names.FULL_STEPS: "model, {steps} steps",
    names.ONE_STEP: "model, 1 step",
    names.COPY: "first frame, copied",
    names.BLUR: "first frame, blurred (sigma {sigma_px} px)",
    names.SHUFFLED_PAIRS: "another scene's video",
    names.SHUFFLED_RAYMAPS: "model, 1 step, another scene's raymaps",
}
METRICS = {"psnr": "PSNR, dB", "ssim": "SSIM", "lpips": "LPIPS", "temporal_flickering": "temporal flickering"}
ABOVE_IS_BETTER = {"psnr": True, "ssim": True, "lpips": False, "temporal_flickering": True}


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
    """A line a row of the table: label, windows, and each metric's mean with its interval."""
    psnr_by_frame: dict[str, list[float]] = field(default_factory=dict)
    psnr_by_group: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)


def metric_name(row: str, metric: str, prefix: str) -> str:
    """Return the name in MLflow, e.g. eval/psnr, eval/psnr_1_step, eval/codec/psnr."""
    if row == names.FULL_STEPS:
        return f"{prefix}/{metric}"
    if row == names.ONE_STEP:
        return f"{prefix}/{metric}_1_step"
    if row == names.SHUFFLED_RAYMAPS:
        return f"{prefix}/{metric}_1_step_shuffled_raymaps"
    return f"{prefix}/{row}/{metric}"


def figures(evaluation: Evaluation, prefix: str) -> dict[str, float]:
    """Return every row's means by name."""
    scores, metrics = evaluation.scores, {}
    for row in LABELS:
        for metric in scores.metrics(row):
            if says_something(row, metric):
                metrics[metric_name(row, metric, prefix)] = scores.mean(row, metric)
    metrics[f"{prefix}/{names.BLUR}/sigma_px"] = evaluation.sigma_px
    return metrics


def says_something(row: str, metric: str) -> bool:
    """Tell whether a figure is one: of a video beside itself PSNR (infinite), SSIM (1) and LPIPS (0) are not."""
    return row != names.GROUND_TRUTH or metric == "temporal_flickering"


def better_baseline(evaluation: Evaluation) -> str:
    return max((names.COPY, names.BLUR), key=lambda row: evaluation.scores.mean(row, "psnr"))


def with_interval(metrics: dict[str, float], name: str, interval: Interval) -> None:
    metrics |= {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}


def gain_sentence(evaluation: Evaluation, gain: Interval | None) -> str:
    """Say whether the model beats what costs nothing."""
    scores, steps = evaluation.scores, evaluation.steps
    mean = {row: scores.mean(row, "psnr") for row in (names.ONE_STEP, names.FULL_STEPS, names.COPY, names.BLUR)}
    above = mean[names.ONE_STEP] - max(mean[names.COPY], mean[names.BLUR])
    interval = f"{above:+.2f} dB" + (f" [{gain.low:+.2f}, {gain.high:+.2f}]" if gain else " (no interval: one scene)")
    learned = f"learned ({LEARNED_DB} dB above or more)" if above >= LEARNED_DB else f"NOT {LEARNED_DB} dB above"
    return (
        f"PSNR at 1 step {mean[names.ONE_STEP]:.2f} dB ({steps} steps: {mean[names.FULL_STEPS]:.2f}), better of copy "
        f"({mean[names.COPY]:.2f}) and blur ({mean[names.BLUR]:.2f}, sigma {evaluation.sigma_px:g} px): "
        f"{interval}: {learned}."
    )


def cameras_sentence(drop: Interval | None) -> str:
    """Say whether the model looks at its cameras."""
    if drop is None:
        return "Shuffling raymaps: not measured, the split has one scene: that the cameras are used is NOT shown."
    shown = "the cameras are used" if drop.low > 0 else "that the cameras are used is NOT shown"
    cost = f"{drop.mean:.2f} dB [{drop.low:.2f}, {drop.high:.2f}]"
    return f"Shuffling raymaps between scenes costs {cost} at 1 step: {shown}."


def scope_sentence(evaluation: Evaluation, counts: dict[str, Any], train_steps: int) -> str:
    """Say what was scored: how much of it, and whether the training had ended."""
    text = (
        f"Split {evaluation.split} (towns never trained on: {', '.join(counts['towns'])}): "
        f"{counts['windows']} windows of {counts['clips']} clips, {counts['scenes']} scenes; "
        "intervals are 95 %, over scenes."
    )
    if counts["windows_at_full_steps"] < counts["windows"]:
        text += f" At {evaluation.steps} steps: {counts['windows_at_full_steps']} windows, as many of every recording."
    if evaluation.left_out:
        text += f" {evaluation.left_out} more windows were left out, as many of every recording."
    if counts["trained_steps"] < train_steps:
        text += f" The training is not over: step {counts['trained_steps']} of {train_steps}."
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


def make_report(evaluation: Evaluation, *, trained_steps: int, train_steps: int, mlflow_url: str) -> Report:
    """Put an evaluation into figures and sentences; names begin with eval/ (test split) or eval_<split>/."""
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
    return Report(
        metrics=metrics,
        missing=missing,
        verdict=[
            scope_sentence(evaluation, counts, train_steps),
            gain_sentence(evaluation, gain),
            cameras_sentence(drop),
        ],
        mlflow_url=mlflow_url,
        convention=CONVENTION,
        checkpoint=str(evaluation.checkpoint),
        split=evaluation.split,
        clips=counts["clips"],
        counts=counts,
        rows=[table_row(evaluation, row) for row in LABELS if scores.metrics(row)],
        psnr_by_frame={
            row: scores.by_frame(row) for row in LABELS if scores.metrics(row) and row != names.GROUND_TRUTH
        },
        psnr_by_group={
            row: scores.by_group(row) for row in LABELS if scores.metrics(row) and row != names.GROUND_TRUTH
        },
    )


def table_row(evaluation: Evaluation, row: str) -> dict[str, Any]:
    """Return a row's label and figures, with intervals where there are two scenes or more."""
    scores = evaluation.scores
    line: dict[str, Any] = {"row": row, "windows": scores.count(row)}
    line["label"] = LABELS[row].format(steps=evaluation.steps, sigma_px=f"{evaluation.sigma_px:g}")
    several = len({window.scene for window in scores.windows.values()}) > 1
    for metric in scores.metrics(row):
        if not says_something(row, metric):
            continue
        line[metric] = {"mean": scores.mean(row, metric)}
        if several:
            interval = scores.interval(row, metric)
            line[metric] |= {"low": interval.low, "high": interval.high}
    return line


def write_tables(evaluation: Evaluation, report: Report, folder: Path) -> None:
    """Write report.json and windows.csv, a line a window and row."""
    (folder / "report.json").write_text(json.dumps(report.__dict__, indent=1, allow_nan=False))
    lines = evaluation.scores.table()
    columns = list(dict.fromkeys(column for line in lines for column in line))
    with open(folder / "windows.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(lines)
