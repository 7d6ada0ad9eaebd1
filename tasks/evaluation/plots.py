"""PSNR by frame and by town, weather and type."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from tasks.evaluation import scores as names
from tasks.evaluation.report import Report

COLOURS = {
    names.CODEC: "#9aa3b2",
    names.ONE_STEP: "#0b6bcb",
    names.FULL_STEPS: "#12a594",
    names.SHUFFLED_RAYMAPS: "#8e4ec6",
    names.COPY: "#c77700",
    names.BLUR: "#d6409f",
    names.SHUFFLED_PAIRS: "#60646c",
}
DASHED = (names.CODEC, names.SHUFFLED_PAIRS)
BARS = (names.ONE_STEP, names.FULL_STEPS, names.COPY, names.BLUR)


def labels(report: Report) -> dict[str, str]:
    return {row["row"]: row["label"] for row in report.rows}


def plain(axes: plt.Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6e8ec")
    axes.set_axisbelow(True)


def plot_by_frame(report: Report, path: Path) -> None:
    """A line a row: how PSNR falls with the distance from the frame that is given."""
    figure, axes = plt.subplots(figsize=(7.6, 4.2), dpi=120, layout="constrained")
    for row, values in report.psnr_by_frame.items():
        style = "--" if row in DASHED else "-"
        axes.plot(
            range(1, len(values) + 1), values, style, color=COLOURS[row], label=labels(report)[row], linewidth=1.8
        )
    axes.set(xlabel="frame (0 is given)", ylabel="PSNR, dB", title="PSNR by frame")
    plain(axes)
    axes.legend(fontsize=8, frameon=False)
    figure.savefig(path)
    plt.close(figure)


def plot_by_group(report: Report, path: Path) -> None:
    """Bars for every town, weather and type."""
    shown = [row for row in BARS if row in report.psnr_by_group]
    tables = report.psnr_by_group[shown[0]]
    sizes = [len(groups) + 0.5 for groups in tables.values()]
    figure, all_axes = plt.subplots(
        1, len(tables), figsize=(11.5, 3.8), dpi=120, sharey=True, layout="constrained", width_ratios=sizes
    )
    lowest = min(min(report.psnr_by_group[row][title].values()) for row in shown for title in tables)
    for axes, (title, groups) in zip(all_axes, tables.items(), strict=True):
        for number, row in enumerate(shown):
            at = np.arange(len(groups)) + (number - (len(shown) - 1) / 2) * 0.2
            axes.bar(
                at, list(report.psnr_by_group[row][title].values()), 0.18, color=COLOURS[row], label=labels(report)[row]
            )
        axes.set_xticks(range(len(groups)), [name.replace("_", "\n") for name in groups], fontsize=8)
        axes.set_title(f"by {title}", fontsize=10)
        plain(axes)
    all_axes[0].set(ylabel="PSNR, dB (axis cut)", ylim=(max(0, lowest - 2), None))
    figure.legend(
        *all_axes[0].get_legend_handles_labels(),
        fontsize=8,
        frameon=False,
        ncols=len(shown),
        loc="outside lower center",
    )
    figure.savefig(path)
    plt.close(figure)
