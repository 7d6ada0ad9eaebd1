"""The test scenes of a data set with hidden facts, each with its twin, as the model sees them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from model import mosaic
from model.presets import Preset, VideoConfig
from tasks.benchmark.errors import BenchmarkError
from tasks.encoding.frames import model_video
from tasks.planning.rows import FIRST_EXTRA_ID
from tasks.sharding.reader import ClipIndex, ClipPair, read_pair

BASE, TWIN = "base", "fact_changed"
TASKS = ("appearance", "binding", "trajectory")
CELL_PX = 64
"""Pixels of a latent cell: 8x8."""

Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class BenchScenes:
    """N scenes of one task and their twins, which differ in the fact alone; A agents, V views, T frames."""

    task: str
    distance: str
    """"large", "medium" or "small"; "mixed" where they were read together."""
    observer: int
    """The agent to whom the fact is hidden at frame 0."""
    names: list[str]
    """Ids of the scenes: also the names that seed their noise."""
    towns: list[str]
    facts: list[dict[str, Any]]
    """As planned for the scene itself."""
    labels: torch.Tensor
    """[N, 2] int64, of the scene and of its twin."""
    K: torch.Tensor
    """[N, A, V, 3, 3] float64, of the stored view."""
    c2w: torch.Tensor
    """[N, A, V, T, 4, 4] float64, OpenCV axes, metres."""
    twin_c2w: torch.Tensor
    """The same of the twin: differs in task "trajectory" only."""
    truth: torch.Tensor
    """[N, A, 3, T, H, W] in [-1, 1]."""
    twin_truth: torch.Tensor
    depth_m: torch.Tensor
    """[N, A, T, H, W], along the camera's axis, inf where nothing is near."""
    twin_depth_m: torch.Tensor
    masks: torch.Tensor
    """[N, S, T, H, W] bool: pixels of the observer's mosaic that show the fact, never in frame 0, which is given.

    appearance: S = 1, all of the fact's vehicles together. binding: one each of the two vehicles. trajectory: S = 1,
    the other agent's car in the scene or in its twin.
    """

    def __len__(self) -> int:
        return len(self.names)

    @property
    def partner(self) -> int:
        """The agent that may see the fact at frame 0."""
        return 1 - self.observer

    @property
    def alternatives(self) -> int:
        """Number of labels; chance is one in so many."""
        return int(self.facts[0]["labels"])

    @property
    def informative(self) -> torch.Tensor:
        """[N] bool: the partner sees the fact at frame 0."""
        return torch.tensor([bool(fact["informative"]) for fact in self.facts])

    @property
    def first(self) -> torch.Tensor:
        """[N, A, 3, H, W]"""
        return self.truth[:, :, :, 0]

    @property
    def twin_first(self) -> torch.Tensor:
        return self.twin_truth[:, :, :, 0]

    @property
    def cells(self) -> torch.Tensor:
        """[N] float: latent cells of the fact, summed over the observer's frames."""
        return self.masks.any(1).flatten(1).sum(1) / CELL_PX


def read_scenes(dataset_dir: Path, preset: Preset, *, task: str = "", distance: str = "") -> BenchScenes:
    """Read the test scenes of one task (and distance).

    `task` and `distance` may be empty where the data set has one task. Scenes without a twin are left out.
    BenchmarkError when a scene has no depth or no instance ids, when a town of the test split was trained on, or when
    no scene fits.
    """
    index = ClipIndex(dataset_dir)
    check_towns(index)
    found = list(scene_rows(index))
    fits = [
        (base, twin, fact)
        for base, twin, fact in found
        if task in ("", fact["task"]) and distance in ("", fact["distance"])
    ]
    if not fits:
        there = ", ".join(sorted({f"{fact['task']} {fact['distance']}" for *_, fact in found})) or "none at all"
        raise BenchmarkError(f"{dataset_dir} has no test scenes of {task or 'any task'} {distance}: there are {there}.")
    tasks = sorted({fact["task"] for *_, fact in fits})
    if len(tasks) > 1:
        raise BenchmarkError(f"{dataset_dir} has scenes of {' and '.join(tasks)}: say which task is to be read.")
    return stacked([read_scene(index, base, twin, fact, preset) for base, twin, fact in fits], fits)


def check_towns(index: ClipIndex) -> None:
    """Raise BenchmarkError for a test split that was trained on."""
    shared = {row["town"] for row in index.split("train")} & {row["town"] for row in index.split("test")}
    if shared:
        raise BenchmarkError(
            f"{index.dataset_dir} trains on {', '.join(sorted(shared))} and tests there too: record test scenes in "
            "towns of their own."
        )


def scene_rows(index: ClipIndex) -> Iterator[tuple[Row, Row, dict[str, Any]]]:
    """Yield the rows of each test scene and its twin, and the scene's fact.

    Scenes without a fact are left out, and those whose twin a quality gate rejected: the leak check counts them.
    """
    rows = index.split("test")
    twins = {row["scene_id"]: row for row in rows if row["variant"] == TWIN}
    for base in (row for row in rows if row["variant"] == BASE):
        fact = json.loads(index.read(base)["meta.json"]).get("fact")
        if fact and base["scene_id"] in twins:
            yield base, twins[base["scene_id"]], fact


def read_scene(index: ClipIndex, base: Row, twin: Row, fact: dict[str, Any], preset: Preset) -> dict[str, torch.Tensor]:
    """Return what `BenchScenes` holds of one scene, without its first axis."""
    parts: dict[str, torch.Tensor] = {}
    ids: list[np.ndarray] = []
    labels: list[int] = []
    frames, video = preset.video.frames, preset.video
    for prefix, row in (("", base), ("twin_", twin)):
        pair = read_pair(row["key"], index.read(row))
        instance, depth_m = ground_truth_of(pair)
        if pair.videos.shape[1] < frames:
            raise BenchmarkError(f"clip {pair.key} has {pair.videos.shape[1]} frames and the model takes {frames}.")
        ids.append(instance[int(fact["observer"]), :frames].astype(np.int32))
        labels.append(int(pair.meta["fact"]["label"]))
        parts[f"{prefix}c2w"] = torch.from_numpy(pair.cameras.c2w[:, :, :frames].copy())
        parts[f"{prefix}truth"] = model_video(pair.videos[:, :frames], video)
        parts[f"{prefix}depth_m"] = at_model_size(torch.from_numpy(depth_m[:, :frames]), video, "nearest-exact")
        parts["K"] = torch.from_numpy(pair.cameras.K.copy())
    if labels[0] == labels[1]:
        raise BenchmarkError(f"scene {base['scene_id']} and its twin have the same label {labels[0]}: plan it again.")
    shown = np.stack([np.logical_or.reduce([ids[variant] == number for variant, number in slot])
                      for slot in slots_of(fact)])  # fmt: skip
    parts["masks"] = at_model_size(torch.from_numpy(shown).float(), video, "area") >= 0.5
    parts["masks"][:, 0] = False
    parts["labels"] = torch.tensor(labels)
    return parts


def ground_truth_of(pair: ClipPair) -> tuple[np.ndarray, np.ndarray]:
    """Return instance ids and depth in metres, [A, F, H, W]. BenchmarkError for a clip without them."""
    if pair.instance is None or pair.depth_m is None:
        raise BenchmarkError(
            f"clip {pair.key} has no depth and instance ids, which show where its fact is: record it in the test split."
        )
    return pair.instance, pair.depth_m


def slots_of(fact: dict[str, Any]) -> list[list[tuple[int, int]]]:
    """Return what each mask of a fact shows: (0 scene or 1 twin, instance id), any of a list."""
    actors = [(0, FIRST_EXTRA_ID + int(actor)) for actor in fact["actors"]]
    if fact["task"] == "trajectory":
        car = 2 - int(fact["observer"])
        return [[(0, car), (1, car)]]
    wanted = {"appearance": len(actors) >= 1, "binding": len(actors) == 2}
    if not wanted.get(fact["task"], False):
        raise BenchmarkError(
            f"a fact of task {fact['task']!r} with {len(actors)} vehicles is not known: the tasks are "
            f"{', '.join(TASKS)}; appearance has one vehicle or more, binding two."
        )
    return [actors] if fact["task"] == "appearance" else [[actor] for actor in actors]


def at_model_size(maps: torch.Tensor, video: VideoConfig, mode: str) -> torch.Tensor:
    """Return maps [N, T, H, W] over stored mosaics at the model's size, resized view by view (trap 22: tokens straddle
    views)."""
    views = mosaic.split(maps[:, :, None])  # N T 4 1 h w
    if video.views == "front":
        small = F.interpolate(views[:, :, 0].flatten(0, 1), (video.height, video.width), mode=mode)
        return small[:, 0].unflatten(0, maps.shape[:2])
    small = F.interpolate(views.flatten(0, 2), (video.height // 2, video.width // 2), mode=mode)
    return mosaic.assemble(small.unflatten(0, views.shape[:3]))[:, :, 0]


def stacked(parts: list[dict[str, torch.Tensor]], rows: list[tuple[Row, Row, dict[str, Any]]]) -> BenchScenes:
    """Stack scenes. BenchmarkError when their facts are not of one kind."""
    facts = [fact for *_, fact in rows]
    for name in ("observer", "labels"):
        values = sorted({fact[name] for fact in facts})
        if len(values) > 1:
            raise BenchmarkError(f"the scenes' facts have {name} {' and '.join(map(str, values))}: plan them alike.")
    distances = {fact["distance"] for fact in facts}
    return BenchScenes(
        task=facts[0]["task"],
        distance=distances.pop() if len(distances) == 1 else "mixed",
        observer=int(facts[0]["observer"]),
        names=[base["scene_id"] for base, *_ in rows],
        towns=[base["town"] for base, *_ in rows],
        facts=facts,
        **{name: torch.stack([part[name] for part in parts]) for name in parts[0]},
    )
