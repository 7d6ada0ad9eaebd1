"""Scenes to drive in: a held-out town, what stands there, the cars' planned trajectories and first pictures.

scenes/<name>.json     the scene; `python -m tasks.play.make_scenes` makes all of them
scenes/<name>.a0.png   the first picture of agent 0, a mosaic; a1: of agent 1
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from infra.reading import read_json
from tasks.planning.rows import AGENTS
from tasks.play.errors import PlayError

FOLDER = Path(__file__).with_name("scenes")
FRAME_S = 0.1
"""Seconds from one frame to the next, as in the clips that the models are trained on."""
AXES = ("x", "y", "z", "pitch", "yaw", "roll")
"""Of a pose in a trajectory file, metres and degrees in CARLA's axes."""
ADVICE = "make the scenes again with `python -m tasks.play.make_scenes`."


@dataclass(frozen=True)
class PlayScene:
    """A place to drive in."""

    name: str
    title: str
    about: str
    """What there is to see, a sentence or two"""
    town: str
    weather: str
    extra_actors: list[dict[str, Any]]
    """What stands there, as in the plan: blueprint, attributes, transform"""
    trajectories: np.ndarray
    """[A, T, 6] x, y, z, pitch, yaw, roll of each car per frame, which it follows while nobody drives it"""
    roads: list[dict[str, Any]]
    """Lanes near by, for the map: `width_m` and `points` [[x, y], ...]"""
    first_pictures: np.ndarray
    """[A, H, W, 3] uint8 mosaics"""


def poses_as_dicts(poses: np.ndarray) -> list[dict[str, float]]:
    """Return poses [T, 6] as trajectory files hold them."""
    return [{name: round(float(value), 4) for name, value in zip(AXES, pose, strict=True)} for pose in poses]


def poses_from_dicts(poses: list[dict[str, float]]) -> np.ndarray:
    """Return [T, 6] of what `poses_as_dicts` returns. KeyError, TypeError or ValueError for anything else."""
    return np.array([[float(pose[name]) for name in AXES] for pose in poses]).reshape(-1, len(AXES))


def scene_names(folder: Path = FOLDER) -> list[str]:
    """Return the names of the scenes that there are, the first to be shown first."""
    return sorted(path.stem for path in folder.glob("*.json"))


def picture_file(name: str, agent: int, folder: Path = FOLDER) -> Path:
    return folder / f"{name}.a{agent}.png"


def read_scene(name: str, folder: Path = FOLDER) -> PlayScene:
    """Return a scene. PlayError for one that there is not, or whose files are damaged."""
    if name not in (names := scene_names(folder)):
        raise PlayError(f"there is no scene {name!a:.80}: the scenes are {', '.join(names)}.")
    path = folder / f"{name}.json"
    found = read_json(path, ADVICE, error=PlayError)
    try:
        trajectories = np.stack([poses_from_dicts(poses) for poses in found["trajectories"]])
        if trajectories.shape[0] != AGENTS or not trajectories.shape[1] or not np.isfinite(trajectories).all():
            raise ValueError(f"trajectories of shape {trajectories.shape}")
        pictures = [Image.open(picture_file(name, agent, folder)).convert("RGB") for agent in range(AGENTS)]
        texts = {key: str(found[key]) for key in ("title", "about", "town", "weather")}
        first = np.stack([np.asarray(picture) for picture in pictures])
        return PlayScene(name, **texts, extra_actors=found["extra_actors"], trajectories=trajectories,
                     roads=found["roads"], first_pictures=first)  # fmt: skip
    except (KeyError, TypeError, ValueError, OSError, UnidentifiedImageError) as error:
        raise PlayError(f"{path} and its pictures are no scene ({error!r:.120}): {ADVICE}") from error
