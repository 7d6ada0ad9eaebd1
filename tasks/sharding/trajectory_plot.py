"""Trajectory plots of a data card: a town's lanes and both cars' paths."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from tasks.planning.motion import closest_approach
from tasks.planning.picture import AGENT_COLORS, FONT, draw_roads, lane_lines, save_png
from tasks.planning.roads import RoadNetwork
from tasks.planning.rows import PlannedRecording

MARGIN_M = 25.0


def trajectory_plot(path: Path, roads: RoadNetwork, recordings: Sequence[PlannedRecording]) -> None:
    """Draw a town with all its recordings, and each recording close up with starts, ends and closest approach."""
    lines = lane_lines(roads)
    columns = min(len(recordings), 3)
    rows = -(-len(recordings) // columns)
    with matplotlib.rc_context(FONT):
        figure = Figure(figsize=(4.2 * (columns + 1), 4.3 * rows + 0.9), layout="constrained")
        figure.suptitle(f"{roads.town}: trajectories (x and y of c2w, metres)", fontsize=11, weight="bold")
        grid = figure.add_gridspec(rows, columns + 1)
        overview = figure.add_subplot(grid[:, 0])
        draw_roads(overview, lines, width=1.6)
        for number, recording in enumerate(recordings):
            axis = figure.add_subplot(grid[number // columns, 1 + number % columns])
            draw_roads(axis, lines, width=7.0)
            draw_pair(axis, recording)
            draw_pair(overview, recording, label=str(number + 1))
            zoom(axis, recording)
            tick, distance = closest_approach(recording.poses)
            axis.set_title(
                f"{number + 1}  {recording.trajectory_type.replace('_', ' ')}, {recording.weather.replace('_', ' ')}\n"
                f"nearest {distance:.1f} m at {tick * recording.fixed_delta_s:.1f} s"
            )
        overview.set_title("the town")
        figure.legend(*legend_entries(), loc="outside lower center", ncols=5, frameon=False)
        save_png(figure, path)


def draw_pair(axis: Any, recording: PlannedRecording, label: str = "") -> None:
    """Draw both cars' paths. With `label`, as on the overview, they are numbered and starts and ends not marked."""
    tick, _ = closest_approach(recording.poses)
    for agent, color in enumerate(AGENT_COLORS):
        x, y = recording.poses[:, agent, 0], -recording.poses[:, agent, 1]
        axis.plot(x, y, color=color, linewidth=1.6)
        if not label:
            axis.plot(x[0], y[0], "o", color=color, markersize=5)
            axis.annotate("", (x[-1], y[-1]), (x[-6], y[-6]), arrowprops={"arrowstyle": "-|>", "color": color})
            axis.plot(x[tick], y[tick], "o", markersize=7, markerfacecolor="none", color=color)
    both = recording.poses[tick, :, :2] * (1, -1)
    if label:
        axis.annotate(label, both.mean(0), weight="bold", xytext=(6, 6), textcoords="offset points")
    else:
        axis.plot(*both.T, ":", color="black", linewidth=1.0)


def zoom(axis: Any, recording: PlannedRecording) -> None:
    """Show a square around the recording's paths."""
    points = recording.poses[..., :2].reshape(-1, 2) * (1, -1)
    middle = (points.min(0) + points.max(0)) / 2
    reach = float(np.ptp(points, axis=0).max()) / 2 + MARGIN_M
    axis.set(xlim=(middle[0] - reach, middle[0] + reach), ylim=(middle[1] - reach, middle[1] + reach))


def legend_entries() -> tuple[list, list[str]]:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=color, linewidth=1.6) for color in AGENT_COLORS]
    handles += [
        Line2D([], [], color="black", marker="o", markersize=5, linestyle=""),
        Line2D([], [], color="black", marker="o", markersize=7, markerfacecolor="none", linestyle=":"),
        Line2D([], [], color="#d4d4d4", linewidth=5),
    ]
    return handles, ["agent 0", "agent 1", "start", "nearest to each other", "driving lanes"]
