"""Is the fact hidden? What its observer is given must be the same in a scene and in its twin.

Given are the observer's first frame and its cameras. Two recordings of one scene may differ a little on a real
simulator (trap 12: large maps differ), so the first frames may differ by MARGIN times as much as the recorded repeats
do (of a few repeats
not one need differ as much as the most different of hundreds of scenes), and the fact must have no pixel by the
instance ids of any scene; on the embedded one repeats are equal, and the check is exact, cameras included: instance ids
are looked at where there are some, in the test split.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from infra.storage import OnProgress, no_progress
from tasks.benchmark.errors import BenchmarkError
from tasks.benchmark.scenes import BASE, TWIN
from tasks.planning.rows import FIRST_EXTRA_ID
from tasks.sharding.reader import Cameras, ClipIndex, decode_video, read_cameras

REPEAT = "repeat"
SAME_CAMERA = 1e-9
MARGIN = 2.0
"""Chosen without a CARLA to measure it on: noise of rendering over a whole frame hardly varies from scene to scene."""


@dataclass(frozen=True)
class Given:
    """What the observer and its partner get of one recording."""

    meta: dict[str, Any]
    first: np.ndarray
    """[A, H, W, 3] uint8"""
    cameras: Cameras
    fact_pixels: int | None
    """Of the observer's first frame that show the fact, by instance ids; None where these are not recorded."""


@dataclass(frozen=True)
class LeakCheck:
    """The outcome over a data set."""

    scenes: int
    leaking: dict[str, str]
    """Scene id -> what gives the fact away."""
    masked: int
    """Scenes in which instance ids were looked at too."""
    unpaired: int
    """Scenes whose twin a quality gate rejected: not checked, and in the test split not scored."""
    untold: int
    """Scenes called informative whose partner's first frame and path are the same in the twin."""
    asked: int
    """Scenes called informative of which that can be said: a one-frame twin has no path."""
    repeats: int
    tolerance: float
    """Mean difference (0..255) of the observer's first frames that passes: MARGIN times the repeats' largest."""

    def __str__(self) -> str:
        exact = "exact"
        if self.tolerance:
            exact = f"to {self.tolerance:.2f} of 255, {MARGIN:g} times what {self.repeats} repeats differ by"
        return (
            f"{len(self.leaking)} of {self.scenes} scenes give their fact away ({exact}, instance ids of {self.masked} "
            f"looked at); {self.untold} of {self.asked} tell it to nobody, {self.unpaired} have no twin to compare with"
        )

    def figures(self) -> dict[str, int]:
        """Return what is reported beside the scores."""
        return {
            "leaking_scenes": len(self.leaking), "checked_scenes": self.scenes, "masked_scenes": self.masked,
            "unpaired_scenes": self.unpaired, "untold_scenes": self.untold,
            "told_checked_scenes": self.asked,
        }  # fmt: skip


def read_given(index: ClipIndex, row: dict[str, Any]) -> Given:
    """Read frame 0 and the cameras of a clip."""
    members = index.read(row)
    meta = json.loads(members["meta.json"])
    cameras = read_cameras(members["cameras.npz"])
    width, height = cameras.view_size
    size = 2 * width, 2 * height
    first = np.stack([decode_video(members[f"agent{k}.mp4"], 1, size)[0] for k in range(len(cameras.K))])
    seen = None
    instance = members.get(f"agent{meta['fact']['observer']}.instance.mkv")
    if instance is not None:
        ids = [FIRST_EXTRA_ID + actor for actor in meta["fact"]["actors"]]
        seen = int(np.isin(decode_video(instance, 1, size)[0], ids).sum())
    return Given(meta, first, cameras, seen)


def picture_difference(one: Given, other: Given, agent: int) -> float:
    """Return the mean absolute difference, 0..255, of an agent's first frames."""
    return float(np.abs(one.first[agent].astype(np.int16) - other.first[agent]).mean())


def same_cameras(one: Given, other: Given, agent: int, apart_m: float = SAME_CAMERA) -> bool:
    """Tell whether an agent's cameras agree over the frames that both recordings have, to `apart_m`."""
    frames = min(one.cameras.c2w.shape[2], other.cameras.c2w.shape[2])
    apart = np.abs(one.cameras.c2w[agent, :, :frames] - other.cameras.c2w[agent, :, :frames]).max()
    return bool(apart <= apart_m and np.array_equal(one.cameras.K[agent], other.cameras.K[agent]))


def leak_of(base: Given, twin: Given, tolerance: float) -> str:
    """Return what gives the fact away, or nothing."""
    observer = int(base.meta["fact"]["observer"])
    if base.fact_pixels or twin.fact_pixels:
        return f"{base.fact_pixels or twin.fact_pixels} pixels of the observer's first frame show it"
    apart = picture_difference(base, twin, observer)
    if apart > tolerance:
        return f"the observer's first frames differ by {apart:.3f} of 255"
    if not same_cameras(base, twin, observer, SAME_CAMERA if tolerance else 0.0):
        return "the observer's cameras differ"
    return ""


def tells(base: Given, twin: Given, tolerance: float) -> bool | None:
    """Tell whether the partner's inputs differ between a scene and its twin, frames by more than the tolerance.

    None where it is the path that tells, and the twin is of one frame.
    """
    partner = 1 - int(base.meta["fact"]["observer"])
    if base.meta["fact"]["task"] != "trajectory":
        return picture_difference(base, twin, partner) > tolerance
    return None if twin.cameras.c2w.shape[2] == 1 else not same_cameras(base, twin, partner)


def check_leaks(dataset_dir: Path, on_progress: OnProgress = no_progress, *, exact: bool = False) -> LeakCheck:
    """Compare every scene with its twin. BenchmarkError where the data set has no hidden facts or no repeats.

    `exact`: two recordings of one scene must be equal, as on the embedded simulator; BenchmarkError when they are not.
    Else every scene needs instance ids, since a fact smaller than that difference would pass; BenchmarkError without.
    """
    index = ClipIndex(dataset_dir)
    variants: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for row in index.rows:
        variants[row["scene_id"]][row["variant"]] = row
    pairs = {scene: rows for scene, rows in variants.items() if BASE in rows and TWIN in rows}
    if not pairs:
        raise BenchmarkError(f"{dataset_dir} has no scene with a twin: record it with a shared-world-bench preset.")
    repeats = [rows for rows in pairs.values() if REPEAT in rows]
    if not repeats:
        raise BenchmarkError(f"{dataset_dir} has no repeats, which say how much two recordings of a scene may differ.")
    apart, partners_apart = [], []
    for rows in repeats:
        base, again = read_given(index, rows[BASE]), read_given(index, rows[REPEAT])
        observer = int(base.meta["fact"]["observer"])
        apart.append(picture_difference(base, again, observer))
        partners_apart.append(picture_difference(base, again, 1 - observer))
    tolerance, partners_tolerance = MARGIN * max(apart), MARGIN * max(partners_apart)
    untold = asked = masked = 0
    if exact and tolerance:
        raise BenchmarkError(
            f"two recordings of one scene of {dataset_dir} differ by {max(apart):.3f} of 255 on a simulator that "
            "repeats itself: the leak check would let as much pass; collect the data set anew."
        )
    leaking: dict[str, str] = {}
    for done, (scene, rows) in enumerate(pairs.items()):
        if done % 50 == 0:
            on_progress(done, len(pairs), f"{len(leaking)} leaks")
        base, twin = read_given(index, rows[BASE]), read_given(index, rows[TWIN])
        reason = leak_of(base, twin, tolerance)
        if reason:
            leaking[scene] = f"{rows[BASE]['town']}: {reason}"
        masked += None not in (base.fact_pixels, twin.fact_pixels)
        told = tells(base, twin, partners_tolerance) if base.meta["fact"]["informative"] else None
        asked += told is not None
        untold += told is False
    on_progress(len(pairs), len(pairs), "")
    if not exact and masked < len(pairs):
        raise BenchmarkError(
            f"{len(pairs) - masked} of {len(pairs)} scenes of {dataset_dir} have no instance ids, and where recordings "
            "differ first frames alone do not show that a fact is hidden: record all of ground_truth_splits."
        )
    unpaired = sum(BASE in rows and TWIN not in rows for rows in variants.values())
    return LeakCheck(len(pairs), leaking, masked, unpaired, untold, asked, len(repeats), tolerance)
