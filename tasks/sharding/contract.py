"""What must hold in a clip pair: one set of checks for `verify`, the reader, `convert` and `generate`.

A agents, V views, F frames. Cameras and meta.json are checked whenever a pair is read, which takes milliseconds;
pictures are checked when they are decoded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from infra.reading import parse_json, read_npz
from model.camera import VIEWS, carla_to_c2w
from tasks.planning.rows import FIRST_EXTRA_ID
from tasks.sharding.errors import ShardError

RECORD_AGAIN = "record or convert it again."
GROUND_TRUTH_KINDS = ("depth", "instance")
CENTRE_TOLERANCE_PX = 1e-6
"""Principal points are written as half the view's width and height, which float64 holds exactly."""
ROTATION_TOLERANCE = 1e-9
"""Of c2w: composed of a few float64 products of sines and cosines, each off by about 1e-16."""
POSE_TOLERANCE = 1e-6
"""Between c2w and CARLA's poses, in metres and matrix elements. Angles in degrees lose about 1e-8 where a camera looks
almost straight up or down, and nobody sees a micrometre."""
TIME_TOLERANCE = 1e-6
"""As a share of the time between frames, besides the rounding of the times themselves."""
MAX_FPS = 1000.0
MAX_METRES = 1e7
"""Distance from the world's origin: more than the earth's radius. Float64 still resolves a few nanometres there."""
FIELD_OF_VIEW_DEG = (1.0, 179.0)
MAX_VIEW_PX, MAX_FRAMES, MAX_AGENTS = 8192, 10_000, 16
MAX_CLIP_BYTES = 2**33
"""Decoded size of a pair's pictures; the paper's have 2**27. A larger one is taken for a decompression bomb and is not
decoded."""
MAX_CAMERA_BYTES = 2**28
MAX_TEXT_LENGTH = 200


@dataclass(frozen=True)
class Cameras:
    """Cameras of a clip pair (see CAMERA_CONVENTION in shards.py)."""

    K: np.ndarray
    """[A, V, 3, 3] float64, pixels of the stored view."""
    c2w: np.ndarray
    """[A, V, F, 4, 4] float64."""
    carla_pose: np.ndarray
    """[A, V, F, 6] x, y, z, pitch, yaw, roll of each camera, CARLA's axes and degrees."""
    agent_pose: np.ndarray
    """[A, F, 6] of each vehicle, as above; NaN where a converted clip's source does not give it."""
    agent_extent: np.ndarray
    """[A, 3] half sizes in metres."""
    agent_box_center: np.ndarray
    """[A, 3] metres in the car's frame."""
    time_s: np.ndarray
    """[F] since the clip's first frame."""

    @property
    def view_size(self) -> tuple[int, int]:
        """Width and height of a stored view in pixels: twice its principal point."""
        width, height = 2 * self.K[0, 0, :2, 2]
        return round(float(width)), round(float(height))


def is_number(value: Any) -> bool:
    """Tell whether a value of JSON is a finite number; True and False are not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf


def is_count(value: Any, minimum: int, maximum: int) -> bool:
    """Tell whether a value of JSON is a whole number from `minimum` to `maximum`."""
    return isinstance(value, int) and not isinstance(value, bool) and minimum <= value <= maximum


def is_text(value: Any) -> bool:
    """Tell whether a value is one line of printable text, not empty and not too long."""
    return isinstance(value, str) and 0 < len(value) <= MAX_TEXT_LENGTH and value.isprintable()


def is_file_name(value: Any) -> bool:
    """Tell whether a value is a text that can be part of a file's name."""
    return is_text(value) and "/" not in value and "\\" not in value and not value.startswith(".")


def is_fact(value: Any) -> bool:
    """Tell whether a value describes a hidden fact (tasks/planning/hidden_facts.py)."""
    checks = {
        "task": is_text, "distance": is_text, "observer": lambda agent: is_count(agent, 0, 1),
        "label": lambda number: is_count(number, 0, 10**6), "labels": lambda number: is_count(number, 1, 10**6),
        "informative": lambda said: isinstance(said, bool),
        "colors": lambda names: isinstance(names, list) and all(is_text(name) for name in names),
        "actors": lambda places: isinstance(places, list) and all(is_count(place, 0, 10**4) for place in places),
    }  # fmt: skip
    return isinstance(value, dict) and all(name in value and is_valid(value[name]) for name, is_valid in checks.items())


def check_members(key: str, names: Collection[str]) -> None:
    """Raise ShardError unless a sample has cameras, meta.json, a video per agent, and each ground truth for all agents
    or for none; and nothing else.

    Whether ground truth was planned is known from the plan only: `verify` checks it.
    """
    agents = agents_of(key, names)
    expected = {"cameras.npz", "meta.json"} | {f"agent{agent}.mp4" for agent in range(agents)}
    for kind in GROUND_TRUTH_KINDS:
        files = {f"agent{agent}.{kind}.mkv" for agent in range(agents)}
        expected |= files if files & set(names) else set()
    lacking, foreign = sorted(expected - set(names)), sorted(set(names) - expected)
    if lacking or foreign:
        problem = f"lacks {lacking[0]}" if lacking else f"holds a foreign member {foreign[0]!r}"
        raise ShardError(f"sample {key} {problem}: {RECORD_AGAIN}")


def agents_of(key: str, names: Collection[str]) -> int:
    """Return the number of a sample's agents: it has one video for each. ShardError for none or too many."""
    agents = sum(bool(re.fullmatch(r"agent\d+\.mp4", name)) for name in names)
    if not 1 <= agents <= MAX_AGENTS:
        raise ShardError(f"sample {key} has videos of {agents} agents: {RECORD_AGAIN}")
    return agents


def read_meta(data: bytes, key: str) -> dict[str, Any]:
    """Return meta.json's content. ShardError for a missing key, or a value of the wrong type or range."""
    meta: dict[str, Any] = parse_json(data, f"meta.json of sample {key}", RECORD_AGAIN, error=ShardError)
    checks = {
        "recording_id": is_file_name, "scene_id": is_text, "variant": is_text, "town": is_file_name, "type": is_text,
        "weather": is_text, "split": is_text,
        "window": lambda value: is_count(value, 0, 10**9),
        "frames": lambda value: is_count(value, 1, MAX_FRAMES),
        "stride": lambda value: is_count(value, 1, 10**6),
        "fps": lambda value: is_number(value) and 0 < value <= MAX_FPS,
        "views": lambda value: value == list(VIEWS),
        "scores": lambda value: isinstance(value, dict),
    }  # fmt: skip
    for name, is_valid in checks.items():
        if name not in meta or not is_valid(meta[name]):
            said = f"says {name} {meta[name]!r:.80}" if name in meta else f"does not say {name!r}"
            raise ShardError(f"meta.json of sample {key} {said}: {RECORD_AGAIN}")
    if meta.get("fact", {}) != {} and not is_fact(meta["fact"]):
        raise ShardError(f"meta.json of sample {key} says fact {meta['fact']!r:.80}: {RECORD_AGAIN}")
    return meta


def check_meta_row(meta: Mapping[str, Any], row: Mapping[str, Any]) -> None:
    """Raise ShardError where meta.json and the sample's row of the index (or of the plan) contradict each other."""
    for name in ("recording_id", "scene_id", "variant", "window", "town", "weather", "split"):
        check_equal(row["key"], name, meta[name], row[name])
    check_equal(row["key"], "type", meta["type"], row["trajectory_type"])


def check_equal(key: str, name: str, in_meta: Any, in_index: Any) -> None:
    """Raise ShardError unless the two values of `name` are equal."""
    if in_meta != in_index:
        raise ShardError(
            f"meta.json of sample {key} says {name} {in_meta!r} and the index {in_index!r}: {RECORD_AGAIN}"
        )


def read_cameras(data: bytes, key: str = "") -> Cameras:
    """Return the arrays of cameras.npz. ShardError for a missing array, or impossible shapes or values."""
    where = f"cameras.npz of sample {key}" if key else "cameras.npz"
    arrays = read_npz(data, where, RECORD_AGAIN, max_bytes=MAX_CAMERA_BYTES, error=ShardError)
    names = [field.name for field in fields(Cameras)]
    lacking = [name for name in names if name not in arrays]
    if lacking:
        raise ShardError(f"{where} lacks {lacking[0]}: {RECORD_AGAIN}")
    cameras = Cameras(**{name: arrays[name] for name in names})
    problem = problem_of_shapes(cameras) or problem_of_numbers(cameras)
    if problem:
        raise ShardError(f"{where} {problem}: {RECORD_AGAIN}")
    return cameras


def problem_of_shapes(cameras: Cameras) -> str:
    """Return what is wrong with the arrays' types and shapes; empty where nothing is."""
    if cameras.K.ndim != 4 or not 1 <= len(cameras.K) <= MAX_AGENTS or not 1 <= cameras.time_s.size <= MAX_FRAMES:
        return f"has K of shape {cameras.K.shape} and {cameras.time_s.size} times"
    agents, views, frames = len(cameras.K), len(VIEWS), cameras.time_s.size
    shapes = {
        "K": (agents, views, 3, 3), "c2w": (agents, views, frames, 4, 4), "carla_pose": (agents, views, frames, 6),
        "agent_pose": (agents, frames, 6), "agent_extent": (agents, 3), "agent_box_center": (agents, 3),
        "time_s": (frames,),
    }  # fmt: skip
    for name, shape in shapes.items():
        array = getattr(cameras, name)
        if array.shape != shape or array.dtype != np.float64:
            return f"has {name} of shape {list(array.shape)} {array.dtype} where {list(shape)} float64 belongs"
    return ""


def problem_of_numbers(cameras: Cameras) -> str:
    """Return what is wrong with the arrays' values; empty where nothing is."""
    width, height = cameras.view_size if np.isfinite(cameras.K).all() else (0, 0)
    return (
        problem_of_view(cameras.K, width, height, CENTRE_TOLERANCE_PX)
        or problem_of_poses(cameras.c2w, ROTATION_TOLERANCE)
        or problem_of_carla_poses(cameras)
        or problem_of_agents(cameras)
    )


def problem_of_view(K: np.ndarray, width: int, height: int, tolerance_px: float) -> str:
    """Return what is wrong with intrinsics [..., 3, 3] of views of this size; empty where nothing is."""
    zeros = np.array([[False, True, False], [True, False, False], [True, True, False]])
    if not np.isfinite(K).all() or K[..., zeros].any() or (K[..., 2, 2] != 1).any():
        return "has a K that is none: give finite numbers, no skew, and 0 0 1 in the last row"
    if not (1 <= width <= MAX_VIEW_PX and 1 <= height <= MAX_VIEW_PX):
        return f"has views of {width}x{height} pixels"
    widest, narrowest = (0.5 / math.tan(math.radians(angle) / 2) for angle in reversed(FIELD_OF_VIEW_DEG))
    focal = K[..., (0, 1), (0, 1)] / (width, height)
    if not ((focal >= widest) & (focal <= narrowest)).all():
        least, most = FIELD_OF_VIEW_DEG
        first = f"{K[..., 0, 0].flat[0]:g} and {K[..., 1, 1].flat[0]:g}"
        return f"has a K that is none: fx and fy ({first} first) are of no view of {least:g} to {most:g} degrees"
    if np.abs(K[..., :2, 2] - (width / 2, height / 2)).max() > tolerance_px:
        wrong = K[..., :2, 2].reshape(-1, 2)
        first = wrong[np.abs(wrong - (width / 2, height / 2)).max(-1).argmax()]
        return (
            f"has a principal point of ({first[0]:g}, {first[1]:g}) where the middle of a {width}x{height} view is "
            f"({width / 2:g}, {height / 2:g})"
        )
    return ""


def problem_of_poses(matrices: np.ndarray, tolerance: float) -> str:
    """Return what keeps matrices [..., 4, 4] from being rigid motions; empty where nothing does."""
    if not np.isfinite(matrices).all():
        return "holds poses that are no finite numbers"
    if np.abs(matrices[..., :3, 3]).max() > MAX_METRES:
        return f"holds poses more than {MAX_METRES:g} m from the world's origin"
    rotation = matrices[..., :3, :3]
    if np.abs(rotation).max() > 1 + tolerance:
        return "holds poses that are no rigid motions"
    if np.abs(rotation @ rotation.swapaxes(-1, -2) - np.eye(3)).max() > tolerance:
        return "holds poses that are no rigid motions"
    if np.abs(matrices[..., 3, :] - [0, 0, 0, 1]).max() > tolerance:
        return "holds poses whose last row is not 0 0 0 1"
    if (np.linalg.det(rotation) < 0).any():
        return "holds poses of a left-handed world"
    return ""


def problem_of_carla_poses(cameras: Cameras) -> str:
    """Return how CARLA's poses differ from those of c2w; empty where they agree."""
    if not np.isfinite(cameras.carla_pose).all() or np.abs(cameras.carla_pose).max() > MAX_METRES:
        return "has a carla_pose that is no finite number"
    difference = np.abs(carla_to_c2w(cameras.carla_pose) - cameras.c2w).max()
    return f"has c2w and carla_pose that differ by {difference:.3g}" if difference > POSE_TOLERANCE else ""


def problem_of_agents(cameras: Cameras) -> str:
    """Return what is impossible in the agents' poses and sizes; empty where nothing is. NaN means unknown."""
    for name in ("agent_pose", "agent_extent", "agent_box_center"):
        if (np.abs(getattr(cameras, name)) > MAX_METRES).any():
            return f"has {name} beyond {MAX_METRES:g}"
    return "has agent_extent that is not above 0" if (cameras.agent_extent <= 0).any() else ""


def check_consistent(key: str, cameras: Cameras, meta: Mapping[str, Any], agents: int) -> None:
    """Raise ShardError where cameras, meta.json and the number of videos contradict each other."""
    frames, step_s = len(cameras.time_s), 1 / meta["fps"]
    steps_s, latest_s = np.diff(cameras.time_s), np.abs(cameras.time_s).max()
    tolerance_s = TIME_TOLERANCE * step_s + 4 * np.finfo(np.float64).eps * latest_s
    width, height = cameras.view_size
    problems = {
        f"cameras of {len(cameras.K)} agents and videos of {agents}": len(cameras.K) != agents,
        f"cameras of {frames} frames and meta.json says {meta['frames']}": frames != meta["frames"],
        f"times that do not go on by 1/fps = {step_s:.6g} s": not latest_s < math.inf
        or (np.abs(steps_s - step_s) > tolerance_s).any()
        or (steps_s <= 0).any(),
        "agents of unknown pose or size and no other source": "source" not in meta
        and not all(np.isfinite(getattr(cameras, name)).all()
                    for name in ("agent_pose", "agent_extent", "agent_box_center")),
        f"{agents} mosaics of {frames} frames of {2 * width}x{2 * height} pixels, more than {MAX_CLIP_BYTES} bytes":
            agents * frames * 12 * width * height > MAX_CLIP_BYTES,
    }  # fmt: skip
    problem = next((text for text, holds in problems.items() if holds), None)
    if problem is not None:
        raise ShardError(f"sample {key} has {problem}: {RECORD_AGAIN}")


def read_meta_and_cameras(key: str, members: Mapping[str, bytes]) -> tuple[dict[str, Any], Cameras]:
    """Return meta.json and the cameras of a sample. ShardError for whatever can be wrong without decoding a picture."""
    check_members(key, members)
    meta, cameras = read_meta(members["meta.json"], key), read_cameras(members["cameras.npz"], key)
    check_consistent(key, cameras, meta, agents_of(key, members))
    return meta, cameras


def check_ids(key: str, instance: np.ndarray, agents: int) -> None:
    """Raise ShardError where instance ids [...] name an agent that the pair does not have."""
    if agents + 1 < FIRST_EXTRA_ID and ((instance > agents) & (instance < FIRST_EXTRA_ID)).any():
        raise ShardError(f"sample {key} shows an agent that it does not have by its instance ids: {RECORD_AGAIN}")
