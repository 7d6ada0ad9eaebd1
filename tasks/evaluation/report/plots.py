"""PSNR by frame and by town, weather, type and distance, drift by window, each on light and on dark paper."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from tasks.evaluation.report.report import Report, by_rollout_window
from tasks.evaluation.scoring import scores as names
from tasks.evaluation.scoring.breakdown import DISTANCE, Figure
from tasks.evaluation.scoring.exchange import WITHOUT, WITHOUT_ONE_STEP

COLOURS = {
    names.CODEC: "#8b93a1",
    names.ONE_STEP: "#2f81d8",
    names.FULL_STEPS: "#12a594",
    WITHOUT: "#d9534a",
    WITHOUT_ONE_STEP: "#e8a09b",
    names.SHUFFLED_RAYMAPS: "#9a63d0",
    names.COPY: "#cf8a1c",
    names.BLUR: "#d6559f",
    names.SHUFFLED_PAIRS: "#6f7782",
}
OTHER = "#7d8f4e"
"""Rows that have no colour of their own."""
DRIFT = {
    "rollout_psnr": "PSNR, dB",
    "rollout_sharpness": "sharpness",
    "rollout_other_bearing_deg": "other car's bearing error, degrees",
}
DASHED = (names.CODEC, names.SHUFFLED_PAIRS, WITHOUT_ONE_STEP)
DOTS = (names.ONE_STEP, names.FULL_STEPS, WITHOUT, WITHOUT_ONE_STEP, names.COPY, names.BLUR)
WIDTH_IN, DPI = 5.8, 180
THEMES = {"": ("#20242c", "#e3e6eb"), "_dark": ("#dfe3ea", "#343a44")}
"""Ink and grid of the light and the dark plot, by the end of the file's name; the paper is the page's."""


def draw(folder: Path, name: str, height_in: float, fill: Callable[[plt.Figure, plt.Axes], None]) -> None:
    """Write <name>.png and <name>_dark.png, without a background."""
    for end, (ink, grid) in THEMES.items():
        colours = {key: ink for key in ("text.color", "axes.labelcolor", "xtick.color", "ytick.color")}
        style: Any = colours | {"axes.edgecolor": grid, "grid.color": grid, "font.size": 10, "axes.titlesize": 11,
                           "axes.titleweight": "bold", "axes.titlelocation": "left"}  # fmt: skip
        with plt.rc_context(style):
            figure, axes = plt.subplots(figsize=(WIDTH_IN, height_in), dpi=DPI, layout="constrained")
            axes.spines[["top", "right"]].set_visible(False)
            axes.set_axisbelow(True)
            fill(figure, axes)
            figure.savefig(folder / f"{name}{end}.png", transparent=True)
            plt.close(figure)


def labels(report: Report) -> dict[str, str]:
    return {row["row"]: row["label"] for row in report.rows}


def legend(figure: plt.Figure, axes: plt.Axes) -> None:
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, fontsize=9, frameon=False, ncols=2, loc="outside lower center")


def plot_by_frame(report: Report, folder: Path) -> str:
    """Draw, per row of the table, how PSNR falls with the distance from the given frame. Return the plot's name."""

    def fill(figure: plt.Figure, axes: plt.Axes) -> None:
        for row, values in report.psnr_by_frame.items():
            style, colour = "--" if row in DASHED else "-", COLOURS.get(row, OTHER)
            frames = range(1, len(values) + 1)
            axes.plot(frames, values, style, color=colour, label=labels(report)[row], linewidth=1.8)
        axes.set(xlabel="frame (0 is given)", ylabel="PSNR, dB", title="By frame")
        axes.grid(axis="y")
        legend(figure, axes)

    draw(folder, "psnr_by_frame", 4.4 + 0.1 * len(report.psnr_by_frame), fill)
    return "psnr_by_frame"


def plot_drift(report: Report, folder: Path) -> list[str]:
    """Draw, per row, how a rollout's figures change from window to window. Return the plots' names."""
    written = []
    for metric, label in DRIFT.items():
        found = {row["row"]: by_rollout_window(row, metric) for row in report.rows}
        lines = {row: values for row, values in found.items() if len(values) > 1}
        if lines:
            draw(folder, f"drift_{metric.removeprefix('rollout_')}", 3.6, drift_lines(report, lines, label))
            written.append(f"drift_{metric.removeprefix('rollout_')}")
    return written


def drift_lines(
    report: Report, lines: dict[str, list[Figure | None]], label: str
) -> Callable[[plt.Figure, plt.Axes], None]:
    def fill(figure: plt.Figure, axes: plt.Axes) -> None:
        for row, values in lines.items():
            means = [np.nan if value is None else value["mean"] for value in values]
            style, colour = "--" if row in DASHED else "-", COLOURS.get(row, OTHER)
            axes.plot(range(1, len(means) + 1), means, style, color=colour, label=labels(report)[row], linewidth=1.8)
        axes.set(xlabel="window of the long video", ylabel=label, title=f"Drift: {label}")
        axes.grid(axis="y")
        legend(figure, axes)

    return fill


def plot_by_group(report: Report, folder: Path) -> list[str]:
    """A plot for town, weather, type and distance: one dot per row with its 95 % interval. Return the plots' names."""
    shown = [row for row in DOTS if row in report.psnr_by_group]
    written = []
    tables = report.psnr_by_group[shown[0]]
    for title, groups in sorted(tables.items(), key=lambda table: table[0] != DISTANCE):
        name, height = f"psnr_by_{title.split()[0]}", 1.7 + 0.16 * len(groups) * (len(shown) + 1)
        draw(folder, name, height, dots(report, title, shown))
        written.append(name)
    return written


def dots(report: Report, title: str, shown: list[str]) -> Callable[[plt.Figure, plt.Axes], None]:
    groups = list(report.psnr_by_group[shown[0]][title])

    def fill(figure: plt.Figure, axes: plt.Axes) -> None:
        for number, row in enumerate(shown):
            offset = (number - (len(shown) - 1) / 2) * 0.8 / len(shown)
            colour, label = COLOURS[row], labels(report)[row]
            for place, group in enumerate(groups):
                found = report.psnr_by_group[row][title].get(group)
                if found is None:
                    continue
                if "low" in found:
                    axes.plot(
                        [found["low"], found["high"]], [place + offset] * 2, color=colour, linewidth=1.6, alpha=0.6
                    )
                axes.plot(found["mean"], place + offset, "o", color=colour, markersize=5, label=label)
                label = "_"
        axes.set_yticks(range(len(groups)), [named(report, title, group, shown[0]) for group in groups])
        axes.set(xlabel="PSNR, dB", title=f"By {title}", ylim=(len(groups) - 0.45, -0.55))
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x")
        legend(figure, axes)

    return fill


def named(report: Report, title: str, group: str, row: str) -> str:
    scenes = int(report.psnr_by_group[row][title][group]["scenes"])
    return f"{group.replace('_', ' ')}\n{scenes} scene{'s' if scenes != 1 else ''}"
