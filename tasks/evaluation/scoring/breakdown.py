"""Where a model is good and where not: by town, weather, type and distance of the other car; its worst windows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from tasks.evaluation.errors import EvaluationError
from tasks.evaluation.measures.metrics import GIVEN_FRAMES
from tasks.evaluation.measures.statistics import cluster_interval
from tasks.evaluation.scoring.scores import GROUPED_BY, Scores
from tasks.evaluation.scoring.windows import Window
from tasks.sharding.reader import ClipIndex, read_cameras

DISTANCE_EDGES_M = (0.0, 10.0, 20.0, 40.0, np.inf)
DISTANCE = "distance of the other car"

Figure = dict[str, float]
"""mean, the number of scenes, and low and high where there are two scenes or more."""


def distances(dataset_dir: Path, windows: Iterable[Window], scored_frames: int) -> dict[str, np.ndarray]:
    """Return by window the distance in metres [A, T] of each agent to the nearest other one in every scored frame.

    EvaluationError where a clip doesn't tell it.
    """
    clips, poses = ClipIndex(dataset_dir), {}
    found = {}
    for window in windows:
        if window.row["key"] not in poses:
            poses[window.row["key"]] = read_cameras(clips.read(window.row)["cameras.npz"]).agent_pose
        first = window.start + GIVEN_FRAMES
        at = poses[window.row["key"]][:, first : first + scored_frames, :3]
        apart = np.linalg.norm(at[:, None] - at[None], axis=-1)
        apart[np.arange(len(at)), np.arange(len(at))] = np.inf
        found[window.name] = apart.min(1)
        if not np.isfinite(found[window.name]).all():
            raise EvaluationError(
                f"not measured: clip {window.row['key']} does not hold the poses of two agents' cars, so how far the "
                "other car is isn't known."
            )
    return found


def figure(values: Sequence[float], scenes: Sequence[str]) -> Figure:
    """Return the mean of values with its interval over scenes."""
    count = len(set(scenes))
    if count < 2:
        return {"mean": float(np.mean(values)), "scenes": count}
    interval = cluster_interval(values, scenes)
    return {"mean": interval.mean, "scenes": count, "low": interval.low, "high": interval.high}


def by_group(
    scores: Scores, row: str, distance_m: Mapping[str, np.ndarray] | None = None
) -> dict[str, dict[str, Figure]]:
    """Return a row's mean PSNR by town, weather, type and, where distances [A, T] are given, distance."""
    means = scores.per_window(row, "psnr")
    tables: dict[str, dict[str, Figure]] = {}
    for title, column in GROUPED_BY.items():
        group_of = {name: str(scores.windows[name].row[column]) for name in means}
        tables[title] = {}
        for group in sorted(set(group_of.values())):
            names = [name for name in means if group_of[name] == group]
            tables[title][group] = figure([means[name] for name in names], [scores.windows[n].scene for n in names])
    if distance_m is not None:
        tables[DISTANCE] = by_distance(scores, row, distance_m)
    return tables


def by_distance(scores: Scores, row: str, distance_m: Mapping[str, np.ndarray]) -> dict[str, Figure]:
    """Return the mean PSNR over the frames in which the other car is so near, each window weighed by its frames."""
    arrays, found = scores.arrays[row, "psnr"], {}
    for near, far in pairwise(DISTANCE_EDGES_M):
        values, scenes = [], []
        for name, psnr in arrays.items():
            frames = psnr.mean(1)[(distance_m[name] >= near) & (distance_m[name] < far)]
            values += frames.tolist()
            scenes += [scores.windows[name].scene] * len(frames)
        if values:
            found[f"{near:g} to {far:g} m" if np.isfinite(far) else f"{near:g} m or more"] = figure(values, scenes)
    return found


def worst_windows(scores: Scores, row: str, count: int) -> list[Window]:
    """Return the windows of a row with the lowest PSNR, the lowest first, one a recording."""
    means = scores.per_window(row, "psnr")
    lowest: dict[str, str] = {}
    for name in sorted(means, key=lambda name: (means[name], name)):
        lowest.setdefault(scores.windows[name].row["recording_id"], name)
    return [scores.windows[name] for name in list(lowest.values())[:count]]
