"""Clips of other origin, in the folder layout of docs/OTHER_DATA.md: read, checked, brought to our conventions."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from infra.storage import canonical_json, sha256_bytes, sha256_file
from model.camera import VIEWS
from tasks.sharding.shards import SPLITS, ShardError

DESCRIPTION: dict[str, Any] = {
    "fps": None, "town": None, "weather": "unlabelled", "type": "unlabelled", "scene": "", "up": "z",
    "metres_per_unit": 1.0,
}  # fmt: skip
"""Keys of clip.json and their values where they are left out; None: it must be there."""
TO_Z_UP = {
    "z": np.eye(3),
    "y": np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]),
    "-y": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
}
"""Rotation of a right-handed world with the named axis up into one with z up."""
POSES = ("agent_pose", "agent_extent", "agent_box_center")
"""Optional arrays of cameras.npz; unknown ones become NaN."""
CENTRE_TOLERANCE_PX, ROTATION_TOLERANCE = 0.01, 1e-3
LEAST_DOWNWARD = 0.5
"""So much of the image's downward axis must point down in the world, the mean over views and frames: CARLA's own
matrices, whose second axis points to the right, have none."""


@dataclass(frozen=True)
class ForeignAgent:
    """One agent's cameras and files; V views, F frames."""

    folder: Path
    K: np.ndarray
    """[V, 3, 3] float64"""
    c2w: np.ndarray
    """[V, F, 4, 4] float64, OpenCV axes, metres, z up"""
    poses: dict[str, np.ndarray]
    """agent_pose [F, 6], agent_extent [3], agent_box_center [3]: CARLA's axes"""


@dataclass(frozen=True)
class ForeignClip:
    """One clip of another data set."""

    folder: Path
    split: str
    description: dict[str, Any]
    agents: list[ForeignAgent]
    width: int
    height: int
    kinds: tuple[str, ...]
    """Which of "depth" and "instance" are there."""

    @property
    def frames(self) -> int:
        return int(self.agents[0].c2w.shape[1])

    @property
    def name(self) -> str:
        return f"{self.split}/{self.folder.name}"

    def digest(self) -> str:
        """Return a hash of every file."""
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        named = {str(path.relative_to(self.folder)): sha256_file(path) for path in files}
        return sha256_bytes(canonical_json([self.split, named]).encode())


def read_description(folder: Path) -> dict[str, Any]:
    """Return clip.json with what it leaves out. ShardError for a missing, unknown or impossible value."""
    path = folder / "clip.json"
    try:
        given = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ShardError(f"{path} cannot be read ({error}): write one as docs/OTHER_DATA.md shows.") from error
    if not isinstance(given, dict):
        raise ShardError(f"{path} is no JSON object: write one as docs/OTHER_DATA.md shows.")
    unknown = sorted(set(given) - set(DESCRIPTION))
    if unknown:
        raise ShardError(f"{path} has an unknown key {unknown[0]!r}: use {', '.join(DESCRIPTION)}.")
    found = DESCRIPTION | given
    for key in ("fps", "metres_per_unit"):
        if isinstance(found[key], bool) or not isinstance(found[key], int | float) or not 0 < found[key] < 1e6:
            raise ShardError(f"{path} says {key} {found[key]!r}: give a number above 0.")
    if not isinstance(found["town"], str) or not found["town"]:
        raise ShardError(f"{path} says town {found['town']!r}: name the place, for no place may be in two splits.")
    for key in ("weather", "type", "scene"):
        if not isinstance(found[key], str):
            raise ShardError(f"{path} says {key} {found[key]!r}: give a text.")
    if found["up"] not in TO_Z_UP:
        raise ShardError(f"{path} says up {found['up']!r}: give the world's upward axis, {', '.join(TO_Z_UP)}.")
    return found


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return an .npz's arrays. ShardError when it cannot be read or holds a pickle."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise ShardError(f"{path} cannot be read ({error}): write it with numpy.savez.") from error


def rigid(matrices: np.ndarray, path: Path) -> np.ndarray:
    """Return [V, F, 4, 4] float64 with exact rotations. ShardError for mirrored, scaled or sheared ones."""
    matrices = np.asarray(matrices, np.float64)
    rotation = matrices[..., :3, :3]
    if not np.isfinite(matrices).all():
        raise ShardError(f"{path} holds poses that are no finite numbers: leave such frames out.")
    if np.abs(rotation @ rotation.swapaxes(-1, -2) - np.eye(3)).max() > ROTATION_TOLERANCE:
        raise ShardError(f"{path} holds poses that are no rigid motions: give rotation and translation only.")
    if np.abs(matrices[..., 3, :] - [0, 0, 0, 1]).max() > ROTATION_TOLERANCE:
        raise ShardError(f"{path} holds poses whose last row is not 0 0 0 1: give matrices that multiply columns.")
    if (np.linalg.det(rotation) < 0).any():
        raise ShardError(f"{path} holds poses of a left-handed world: negate one axis of the world (CARLA's y).")
    u, _, vt = np.linalg.svd(rotation)
    exact = np.zeros_like(matrices)
    exact[..., :3, :3], exact[..., :3, 3], exact[..., 3, 3] = u @ vt, matrices[..., :3, 3], 1.0
    return exact


def read_agent(folder: Path, description: dict[str, Any], width: int, height: int) -> ForeignAgent:
    """Read and convert an agent's cameras. ShardError names the first fault."""
    path = folder / "cameras.npz"
    arrays = read_arrays(path)
    if "K" not in arrays or ("c2w" in arrays) == ("w2c" in arrays):
        raise ShardError(f"{path} holds {sorted(arrays)}: give K and either c2w or w2c.")
    given = arrays["c2w"] if "c2w" in arrays else arrays["w2c"]
    K = np.asarray(arrays["K"], np.float64)
    if K.shape != (len(VIEWS), 3, 3):
        raise ShardError(f"{path} has K of shape {K.shape}: give [{len(VIEWS)}, 3, 3], views {', '.join(VIEWS)}.")
    if given.ndim != 4 or given.shape[0] != len(VIEWS) or given.shape[2:] != (4, 4) or not given.shape[1]:
        raise ShardError(f"{path} has poses of shape {given.shape}: give [{len(VIEWS)}, frames, 4, 4].")
    upper = np.array([[False, True, False], [True, False, False], [True, True, False]])
    if not np.isfinite(K).all() or (K[:, [0, 1], [0, 1]] <= 0).any() or K[:, upper].any() or (K[:, 2, 2] != 1).any():
        raise ShardError(f"{path} has a K that is none: give fx and fy above 0, no skew, and 0 0 1 in the last row.")
    centre, middle = K[:, :2, 2], (width / 2, height / 2)
    if np.abs(centre - middle).max() > CENTRE_TOLERANCE_PX:
        raise ShardError(
            f"{path} has a principal point of ({centre[0, 0]:g}, {centre[0, 1]:g}) where the middle of a "
            f"{width}x{height} view is {middle}: crop the views, and count pixel centres at +0.5."
        )
    pose = rigid(given, path)
    pose = pose if "c2w" in arrays else np.linalg.inv(pose)
    turn = TO_Z_UP[description["up"]]
    c2w = pose.copy()
    c2w[..., :3, :3] = turn @ pose[..., :3, :3]
    c2w[..., :3, 3] = pose[..., :3, 3] @ turn.T * description["metres_per_unit"]
    if c2w[..., 2, 1].mean() > -LEAST_DOWNWARD:
        raise ShardError(
            f"{path} has cameras whose image does not have the world's up axis ({description['up']}) above: give c2w "
            "or w2c in OpenCV's axes (x right, y down, z forward), of a right-handed world."
        )
    shapes = {"agent_pose": (given.shape[1], 6), "agent_extent": (3,), "agent_box_center": (3,)}
    poses = {}
    for name in POSES:
        poses[name] = np.asarray(arrays.get(name, np.full(shapes[name], np.nan)), np.float64)
        if poses[name].shape != shapes[name]:
            raise ShardError(f"{path} has {name} of shape {poses[name].shape}: give {list(shapes[name])}.")
    return ForeignAgent(folder, K, rigid(c2w, path), poses)


def video_size(path: Path) -> tuple[int, int]:
    """Return width and height. ShardError for what is no video."""
    try:
        with av.open(str(path), "r") as container:
            return container.streams.video[0].width, container.streams.video[0].height
    except (OSError, av.FFmpegError, IndexError) as error:
        raise ShardError(f"{path} is no video that can be read ({error}).") from error


def read_frames(path: Path) -> Iterator[np.ndarray]:
    """Yield a video's frames [h, w, 3] uint8 BGR, by the colour matrix that it names."""
    try:
        with av.open(str(path), "r") as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for frame in container.decode(stream):
                yield frame.to_ndarray(format="bgr24")
    except (OSError, av.FFmpegError) as error:
        raise ShardError(f"{path} cannot be decoded ({error}).") from error


def open_array(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Return a .npy of the given shape, mapped from the disk."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ShardError(f"{path} cannot be read ({error}): write it with numpy.save.") from error
    if array.shape != shape:
        raise ShardError(f"{path} has shape {array.shape}: give {list(shape)}, as its video has.")
    return array


def kinds_of(folders: list[Path], split: str) -> tuple[str, ...]:
    """Return which ground truth a clip has. ShardError for some of a kind, or no depth where the split needs it."""
    kinds = []
    for kind in ("depth", "instance"):
        files = [folder / f"{view}.{kind}.npy" for folder in folders for view in VIEWS]
        there = [file for file in files if file.is_file()]
        absent = [file for file in files if not file.is_file()]
        if there and absent:
            raise ShardError(f"{absent[0]} is missing while {there[0].name} is there: give all or none.")
        if not there and kind == "depth" and split != "train":
            raise ShardError(f"{absent[0]} is missing: clips of val and test need depth; put it there or into train.")
        kinds += [kind] if there else []
    return tuple(kinds)


def read_clip(folder: Path, split: str) -> ForeignClip:
    """Read and check all of a clip but its pixels. ShardError names the first fault."""
    description = read_description(folder)
    folders = sorted(path for path in folder.glob("agent*") if path.is_dir())
    if not folders or [path.name for path in folders] != [f"agent{number}" for number in range(len(folders))]:
        raise ShardError(f"{folder} has folders {[path.name for path in folders]}: name them agent0, agent1, ...")
    sizes = {video_size(agent / f"{view}.mp4") for agent in folders for view in VIEWS}
    if len(sizes) > 1:
        raise ShardError(f"{folder} has views of different sizes {sorted(sizes)}: give them one size.")
    width, height = sizes.pop()
    agents = [read_agent(agent, description, width, height) for agent in folders]
    lengths = [agent.c2w.shape[1] for agent in agents]
    if len(set(lengths)) > 1:
        raise ShardError(f"{folder} has agents of {lengths} frames: give them the same frames.")
    return ForeignClip(folder, split, description, agents, width, height, kinds_of(folders, split))


def read_clips(folder: Path) -> list[ForeignClip]:
    """Read a whole folder of splits. ShardError for none, and for a town in two splits."""
    places = [(split, path) for split in SPLITS for path in sorted((folder / split).glob("*")) if path.is_dir()]
    if not places:
        raise ShardError(f"{folder} holds no clips: put them into train/NAME, val/NAME or test/NAME.")
    clips = [read_clip(path, split) for split, path in places]
    first = clips[0]
    for clip in clips:
        if len(clip.agents) != len(first.agents):
            raise ShardError(
                f"{clip.name} has {len(clip.agents)} agents and {first.name} {len(first.agents)}: a data set's clips "
                "have as many each."
            )
    towns: dict[str, str] = {}
    for clip in clips:
        split = towns.setdefault(clip.description["town"], clip.split)
        if split != clip.split:
            raise ShardError(f"town {clip.description['town']} is in {split} and {clip.split}: keep it to one split.")
    return clips
