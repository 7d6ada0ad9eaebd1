"""Reads clips of other origin, in the layout of docs/OTHER_DATA.md, checks them and brings them to our conventions."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from infra.reading import DAMAGE, one_line, read_json, read_npz, read_sha256
from infra.storage import canonical_json, sha256_bytes
from model.camera import VIEWS
from tasks.sharding.contract import (
    GROUND_TRUTH_KINDS,
    MAX_AGENTS,
    MAX_FPS,
    MAX_FRAMES,
    MAX_VIEW_PX,
    is_file_name,
    is_number,
    is_text,
    problem_of_poses,
    problem_of_view,
)
from tasks.sharding.errors import ShardError
from tasks.sharding.index import SPLITS

CLIP_JSON_DEFAULTS: dict[str, Any] = {
    "fps": None, "town": None, "weather": "unlabelled", "type": "unlabelled", "scene": "", "up": "z",
    "metres_per_unit": 1.0,
}  # fmt: skip
"""Keys of clip.json and their defaults; None: the key is required."""
TO_Z_UP = {
    "z": np.eye(3),
    "y": np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]),
    "-y": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
}
"""Rotation from a right-handed world with the named axis up to one with z up."""
AGENT_ARRAYS = ("agent_pose", "agent_extent", "agent_box_center")
"""Optional arrays of cameras.npz; unknown ones become NaN."""
CENTRE_TOLERANCE_PX, ROTATION_TOLERANCE = 0.01, 1e-3
"""Wide enough for float32 and rounded decimals; what is stored is made exact."""
POSE_ADVICE = (
    "give rotation and translation only, finite, as matrices that multiply columns, of a right-handed world (negate "
    "the y axis of CARLA's)."
)
AS_DOCUMENTED = "write one as docs/OTHER_DATA.md shows."
MIN_DOWNWARD = 0.5
"""Least mean downward component, over views and frames, of the image's y axis in the world. CARLA's own matrices, whose
second axis points to the right, have none."""


@dataclass(frozen=True)
class ForeignAgent:
    """One agent's cameras and files; V views, F frames."""

    folder: Path
    K: np.ndarray
    """[V, 3, 3] float64"""
    c2w: np.ndarray
    """[V, F, 4, 4] float64, OpenCV axes, metres, z up"""
    poses: dict[str, np.ndarray]
    """agent_pose [F, 6], agent_extent [3], agent_box_center [3], in CARLA's axes; NaN where not given"""


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
    """Which of "depth" and "instance" the clip has."""

    @property
    def frames(self) -> int:
        return int(self.agents[0].c2w.shape[1])

    @property
    def name(self) -> str:
        return f"{self.split}/{self.folder.name}"

    def digest(self) -> str:
        """Return a hash of the split and of every file's name and content."""
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        for path in files:
            check_name(path)
        hashes = {str(path.relative_to(self.folder)): read_sha256(path, AS_DOCUMENTED, ShardError) for path in files}
        return sha256_bytes(canonical_json([self.split, hashes]).encode())


def check_name(path: Path) -> None:
    """Raise ShardError for a file or folder whose name no JSON file can hold."""
    if not is_text(path.name):
        raise ShardError(f"{os.fsencode(path)!r} has a name that is no line of UTF-8: give it another.")


def read_clip_json(folder: Path) -> dict[str, Any]:
    """Return clip.json with its defaults filled in. ShardError for a missing, unknown or impossible value."""
    path = folder / "clip.json"
    given = read_json(path, AS_DOCUMENTED, error=ShardError)
    unknown = sorted(set(given) - set(CLIP_JSON_DEFAULTS))
    if unknown:
        raise ShardError(f"{path} has an unknown key {unknown[0]!r:.80}: use {', '.join(CLIP_JSON_DEFAULTS)}.")
    found = CLIP_JSON_DEFAULTS | given
    for key, most in (("fps", MAX_FPS), ("metres_per_unit", 1e6)):
        if not is_number(found[key]) or not 0 < found[key] <= most:
            raise ShardError(f"{path} says {key} {found[key]!r:.80}: give a number above 0, at most {most:g}.")
    if not is_file_name(found["town"]):
        raise ShardError(
            f"{path} says town {found['town']!r:.80}: name the place in one line without slashes, for no place may be "
            "in two splits."
        )
    for key in ("weather", "type", "scene"):
        if not is_text(found[key]) and (key, found[key]) != ("scene", ""):
            raise ShardError(f"{path} says {key} {found[key]!r:.80}: give a text of one line.")
    if not isinstance(found["up"], str) or found["up"] not in TO_Z_UP:
        raise ShardError(f"{path} says up {found['up']!r:.80}: give the world's upward axis, {', '.join(TO_Z_UP)}.")
    return found


def as_float64(array: np.ndarray, what: str) -> np.ndarray:
    """Return an array as float64. ShardError unless it holds real numbers. `what`: its name in the message."""
    if array.dtype.kind not in "fiu":
        raise ShardError(f"{what} is of type {array.dtype}: give real numbers.")
    return np.asarray(array, np.float64)


def rigid_motions(matrices: np.ndarray, path: Path) -> np.ndarray:
    """Return matrices [V, F, 4, 4] with exact rotations. ShardError for mirrored, scaled or sheared ones."""
    problem = problem_of_poses(matrices, ROTATION_TOLERANCE)
    if problem:
        raise ShardError(f"{path} {problem}: {POSE_ADVICE}")
    u, _, vt = np.linalg.svd(matrices[..., :3, :3])
    exact = np.zeros_like(matrices)
    exact[..., :3, :3], exact[..., :3, 3], exact[..., 3, 3] = u @ vt, matrices[..., :3, 3], 1.0
    return exact


def read_agent(folder: Path, description: dict[str, Any], width: int, height: int) -> ForeignAgent:
    """Read an agent's cameras in our conventions. ShardError names the first fault."""
    path = folder / "cameras.npz"
    arrays = read_npz(path, str(path), "as it is it cannot be read, write it with numpy.savez.", error=ShardError)
    if "K" not in arrays or ("c2w" in arrays) == ("w2c" in arrays):
        raise ShardError(f"{path} holds {sorted(arrays)!r:.200}: give K and either c2w or w2c.")
    K = as_float64(arrays["K"], f"K in {path}")
    given = as_float64(arrays["c2w"] if "c2w" in arrays else arrays["w2c"], f"c2w or w2c in {path}")
    if K.shape != (len(VIEWS), 3, 3):
        raise ShardError(f"{path} has K of shape {K.shape}: give [{len(VIEWS)}, 3, 3], views {', '.join(VIEWS)}.")
    if given.ndim != 4 or given.shape[0] != len(VIEWS) or given.shape[2:] != (4, 4) or not given.shape[1]:
        raise ShardError(f"{path} has poses of shape {given.shape}: give [{len(VIEWS)}, frames, 4, 4].")
    if given.shape[1] > MAX_FRAMES:
        raise ShardError(f"{path} has poses of {given.shape[1]} frames: cut it into clips of {MAX_FRAMES} at most.")
    problem = problem_of_view(K, width, height, CENTRE_TOLERANCE_PX)
    if problem:
        raise ShardError(f"{path} {problem}: crop the views so, and count pixel centres at +0.5.")
    pose = rigid_motions(given, path)
    pose = pose if "c2w" in arrays else np.linalg.inv(pose)
    rotation = TO_Z_UP[description["up"]]
    c2w = pose.copy()
    c2w[..., :3, :3] = rotation @ pose[..., :3, :3]
    c2w[..., :3, 3] = pose[..., :3, 3] @ rotation.T * description["metres_per_unit"]
    if c2w[..., 2, 1].mean() > -MIN_DOWNWARD:
        raise ShardError(
            f"{path} has cameras whose image does not have the world's up axis ({description['up']}) above: give c2w "
            "or w2c in OpenCV's axes (x right, y down, z forward), of a right-handed world."
        )
    shapes = {"agent_pose": (given.shape[1], 6), "agent_extent": (3,), "agent_box_center": (3,)}
    poses = {}
    for name in AGENT_ARRAYS:
        poses[name] = as_float64(arrays.get(name, np.full(shapes[name], np.nan)), f"{name} in {path}")
        if poses[name].shape != shapes[name]:
            raise ShardError(f"{path} has {name} of shape {poses[name].shape}: give {list(shapes[name])}.")
    return ForeignAgent(folder, K, rigid_motions(c2w, path), poses)


def video_size(path: Path) -> tuple[int, int]:
    """Return a video's width and height. ShardError for what is no video, or one larger than a view can be."""
    if not path.is_file():
        raise ShardError(f"{path} is no video that can be read (it is no file): give one.")
    try:
        with av.open(str(path), "r") as container:
            width, height = container.streams.video[0].width, container.streams.video[0].height
    except (OSError, ValueError, av.FFmpegError, IndexError) as error:
        raise ShardError(f"{path} is no video that can be read ({one_line(error)}): give one.") from error
    if not (1 <= width <= MAX_VIEW_PX and 1 <= height <= MAX_VIEW_PX):
        raise ShardError(f"{path} has views of {width}x{height}: give at most {MAX_VIEW_PX} pixels a side.")
    return width, height


def read_frames(path: Path, width: int, height: int) -> Iterator[np.ndarray]:
    """Yield a video's frames [h, w, 3] uint8 BGR, by the colour matrix that it names. ShardError for one of another
    size, or that cannot be decoded."""
    try:
        with av.open(str(path), "r") as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            for frame in container.decode(stream):
                if (frame.width, frame.height) != (width, height):
                    raise ShardError(f"{path} has a frame of {frame.width}x{frame.height}: give all of one size.")
                yield frame.to_ndarray(format="bgr24")
    except (OSError, ValueError, av.FFmpegError) as error:
        raise ShardError(f"{path} cannot be decoded ({one_line(error)}): give a whole video.") from error


def open_array(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Return a .npy of the given shape as a memory map. ShardError unless it holds real numbers of this shape."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except DAMAGE as error:
        raise ShardError(f"{path} cannot be read ({one_line(error)}): write it with numpy.save.") from error
    if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype.kind not in "fiu":
        found = f"shape {array.shape}, {array.dtype}" if isinstance(array, np.ndarray) else "several arrays"
        raise ShardError(f"{path} has {found}: give real numbers of shape {list(shape)}, as its video has.")
    return array


def kinds_of(folders: list[Path], split: str) -> tuple[str, ...]:
    """Return which kinds of ground truth a clip has.

    ShardError where a kind is incomplete, or depth is missing in val or test.
    """
    kinds = []
    for kind in GROUND_TRUTH_KINDS:
        files = [folder / f"{view}.{kind}.npy" for folder in folders for view in VIEWS]
        present = [file for file in files if file.is_file()]
        missing = [file for file in files if not file.is_file()]
        if present and missing:
            raise ShardError(f"{missing[0]} is missing while {present[0].name} is there: give all or none.")
        if not present and kind == "depth" and split != "train":
            raise ShardError(f"{missing[0]} is missing: clips of val and test need depth; put it there or into train.")
        kinds += [kind] if present else []
    return tuple(kinds)


def read_clip(folder: Path, split: str) -> ForeignClip:
    """Read and check everything in a clip but its pixels. ShardError names the first fault."""
    description = read_clip_json(folder)
    check_name(folder)
    folders = sorted(path for path in folder.glob("agent*") if path.is_dir())
    names = [path.name for path in folders]
    if not 1 <= len(names) <= MAX_AGENTS or names != [f"agent{number}" for number in range(len(folders))]:
        raise ShardError(f"{folder} has folders {names!r:.200}: name them agent0, agent1, ..., {MAX_AGENTS} at most.")
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
    """Read all clips of all splits. ShardError where there are none, a town is in two splits, or clips have different
    numbers of agents."""
    folders = [(split, path) for split in SPLITS for path in sorted((folder / split).glob("*")) if path.is_dir()]
    if not folders:
        raise ShardError(f"{folder} holds no clips: put them into train/NAME, val/NAME or test/NAME.")
    clips = [read_clip(path, split) for split, path in folders]
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
