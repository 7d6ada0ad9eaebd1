"""Pictures of a plan: a town's lanes and the paths of all its scenes, a panel per trajectory type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure

from tasks.planning.preset import PlanPreset
from tasks.planning.roads import RoadNetwork
from tasks.planning.rows import AGENTS

AGENT_COLORS = ("#c8202f", "#1f5fa8")
"""Colours of the paths of agents 0 and 1. Both cars are red, but a plot has to tell them apart."""
FONT: Any = {"font.size": 8, "axes.titlesize": 9, "font.family": "DejaVu Sans"}


def save_png(figure: Figure, path: Path) -> None:
    """Write a PNG whose bytes depend on the figure alone."""
    figure.savefig(path, dpi=110, metadata={"Software": None}, facecolor="white")


def lane_lines(roads: RoadNetwork) -> np.ndarray:
    """Return short strokes [N, 2, 2] along the driving lanes' centres: x and y of the right-handed world in metres."""
    points = [w.transform for w in roads.map.generate_waypoints(2.0)]
    centre = np.array([(p.location.x, p.location.y) for p in points])
    yaw = np.radians([p.rotation.yaw for p in points])
    along = np.stack([np.cos(yaw), np.sin(yaw)], 1) * 1.1
    return np.stack([centre - along, centre + along], 1) * (1, -1)


def draw_lines(axis: Any, lines: np.ndarray, color: str, width: float, order: int = 0) -> None:
    """Draw lines [N, P, 2]."""
    from matplotlib.collections import LineCollection

    axis.add_collection(LineCollection(list(lines), colors=color, linewidths=width, zorder=order))


def draw_roads(axis: Any, lines: np.ndarray, width: float) -> None:
    draw_lines(axis, lines, "#d4d4d4", width)
    axis.autoscale_view()
    axis.set_aspect("equal")
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def town_picture(path: Path, preset: PlanPreset, roads: RoadNetwork, recordings: pa.Table) -> None:
    """Draw a town's scenes of the plan `recordings`, by trajectory type, each as its base variant."""
    mine = recordings.filter((pc.field("town") == roads.town) & (pc.field("variant") == "base"))
    lines = lane_lines(roads)
    columns = min(len(preset.trajectory_types), 3)
    rows = -(-len(preset.trajectory_types) // columns)
    with matplotlib.rc_context(FONT):
        figure = Figure(figsize=(4.2 * columns, 4.3 * rows + 0.4), layout="constrained")
        figure.suptitle(
            f"{roads.town}: {mine.num_rows} planned scenes (x and y of c2w, metres)", fontsize=11, weight="bold"
        )
        for number, kind in enumerate(preset.trajectory_types):
            axis = figure.add_subplot(rows, columns, number + 1)
            draw_roads(axis, lines, width=1.2)
            scenes = mine.filter(pc.field("trajectory_type") == kind)
            draw_paths(axis, scenes)
            sites = len(set(scenes["site"].to_pylist()))
            axis.set_title(f"{kind.replace('_', ' ')}: {scenes.num_rows} scenes at {sites} sites")
        save_png(figure, path)


def draw_paths(axis: Any, scenes: pa.Table) -> None:
    """Draw both cars' paths of all scenes, and a dot where car 0 is when they are nearest to each other."""
    if not scenes.num_rows:
        return
    poses = [np.asarray(row.values).reshape(-1, AGENTS, 6)[..., :2] * (1, -1) for row in scenes["poses"]]
    for agent, color in enumerate(AGENT_COLORS):
        draw_lines(axis, np.array([xy[::5, agent] for xy in poses]), color, 0.5, 1 + agent)
    nearest = [xy[np.argmin(np.linalg.norm(xy[:, 0] - xy[:, 1], axis=-1)), 0] for xy in poses]
    axis.plot(*np.array(nearest).T, ".", color="black", markersize=2, zorder=3)
