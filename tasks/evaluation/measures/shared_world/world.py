"""The true geometry of one window at the model's size: cameras, inverse depth, instance ids, the cars' poses.

Inverse depth, not depth, is averaged and interpolated: on a plane it is affine in pixels, so both are exact there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from model import mosaic
from model.camera import carla_matrix
from model.presets import VideoConfig
from tasks.evaluation.errors import EvaluationError
from tasks.sharding.reader import ClipPair

MOST_FRAMES = 17
"""Longer windows are measured on every second, fourth, ... frame, frame 0 and the last one among them."""
MOST_PIXELS = 32_768
"""Of larger views every second, fourth, ... pixel across and down is followed; depth is looked up in all of them."""
MIXED_SHARE, LOWEST_EYE_M = 0.1, 1.2
"""A pixel mixes surfaces where its inverse depth spreads by more than a tenth and more than level ground seen from
1.2 m does."""
MIRROR = np.diag([1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class WindowTruth:
    """Ground truth of the chosen frames of a window; A agents, V views, T frames, views of h x w as the model sees
    them and H x W as stored."""

    frames: np.ndarray
    """[T] places in the window, the first is 0."""
    c2w: np.ndarray
    """[A, V, T, 4, 4] float64, OpenCV axes, metres."""
    cars: np.ndarray
    """[A, T, 4, 4] float64 pose of each agent's car in the same world (y negated: a mirror lies in it)."""
    K: np.ndarray
    """[A, V, 3, 3] pixels of the model's views."""
    inverse: np.ndarray
    """[A, V, T, h, w] float32 1/m along the axis: 0 farther than 655 m, NaN where a pixel mixes surfaces
    or is not followed."""
    ids: np.ndarray
    """[A, V, T, h, w] uint16 instance ids."""
    other: np.ndarray
    """[A, V, T, h, w] float32 share of the pixel that another agent's car covers."""
    stored_K: np.ndarray
    stored_inverse: np.ndarray
    """[A, V, T, H, W] float32, at the pixels' centres."""

    @property
    def agents(self) -> int:
        return len(self.c2w)


def chosen_frames(frames: int) -> np.ndarray:
    """Return the places of a window's frames that are measured: all of 17, every fourth of 49."""
    step = 1
    while (frames - 1) // step + 1 > MOST_FRAMES:
        step *= 2
    return np.arange(0, frames, step)


def cut(arrays: np.ndarray, views: str) -> np.ndarray:
    """Cut mosaics [A, T, H, W] into views [A, V, T, h, w]; the front one alone for views "front"."""
    found = mosaic.split(torch.from_numpy(arrays)[:, :, None])[..., 0, :, :].movedim(2, 1)
    return found[:, :1].numpy() if views == "front" else found.numpy()


def blocks(views: np.ndarray, down: int, across: int) -> np.ndarray:
    """Return [..., h, w, down * across]: what each of the model's pixels holds of the stored ones."""
    *lead, height, width = views.shape
    parts = views.reshape(*lead, height // down, down, width // across, across)
    return parts.swapaxes(-3, -2).reshape(*lead, height // down, width // across, down * across)


def shrunk(inverse: np.ndarray, ids: np.ndarray, focal: float, down: int, across: int) -> tuple[np.ndarray, np.ndarray]:
    """Return inverse depth and ids [..., h, w] of stored views: means, NaN where a pixel mixes surfaces."""
    if down == across == 1:
        return inverse, ids
    cells, members = blocks(inverse, down, across), blocks(ids, down, across)
    mean = cells.mean(-1)
    ground = max(down, across) / (focal * LOWEST_EYE_M)
    mixed = cells.max(-1) - cells.min(-1) > np.maximum(MIXED_SHARE * mean, ground)
    mixed |= (members != members[..., :1]).any(-1) | ((cells == 0).any(-1) & (mean > 0))
    return np.where(mixed, np.float32(np.nan), mean), members[..., 0]


def taken_before_centre(rendered: int, stored: int) -> float:
    """Return how far before a stored pixel's centre, in stored pixels, its depth was taken when views were shrunk.

    Depths are not averaged: of an even number of rendered pixels the one before the middle is kept.
    """
    factor, rest = divmod(rendered, stored)
    return 0.5 / factor if not rest and factor % 2 == 0 else 0.0


def centred(inverse: np.ndarray, ids: np.ndarray, focal: float, before: tuple[float, float]) -> np.ndarray:
    """Return inverse depth [..., h, w] at the pixels' centres, from samples taken `before` them (down, across).

    Inverse depth is affine on a plane: a step towards the next sample is exact there. Where the next pixel shows
    another surface the sample is kept as it is.
    """
    moved = inverse
    for axis, share in ((-2, before[0]), (-1, before[1])):
        if not share:
            continue
        here, ahead = ([slice(None)] * inverse.ndim for _ in range(2))
        here[axis], ahead[axis] = slice(None, -1), slice(1, None)
        one, other = inverse[tuple(here)], inverse[tuple(ahead)]
        step = other - one
        apart = np.abs(step) > np.maximum(MIXED_SHARE * one, 1 / (focal * LOWEST_EYE_M))
        apart |= (ids[tuple(here)] != ids[tuple(ahead)]) | (one == 0) | (other == 0)
        step[apart] = 0
        last = [slice(None)] * inverse.ndim
        last[axis] = slice(-1, None)  # the view's last pixels go on as those before them
        moved = moved + np.float32(share) * np.concatenate([step, step[tuple(last)]], axis)
    return moved


def thinned(inverse: np.ndarray) -> np.ndarray:
    """Return inverse depth [..., h, w] with NaN at the pixels that are not followed."""
    step = 1
    while inverse.shape[-2] * inverse.shape[-1] > MOST_PIXELS * step**2:
        step *= 2
    if step == 1:
        return inverse
    kept = np.full_like(inverse, np.nan)
    kept[..., ::step, ::step] = inverse[..., ::step, ::step]
    return kept


def others(ids: np.ndarray) -> np.ndarray:
    """Return [A, ...] bool: the pixels of ids [A, ...] that show another agent's car."""
    own = np.arange(1, len(ids) + 1, dtype=ids.dtype).reshape(-1, *(1,) * (ids.ndim - 1))
    return (ids > 0) & (ids <= len(ids)) & (ids != own)


def read_window_truth(pair: ClipPair, video: VideoConfig, start: int = 0) -> WindowTruth:
    """Return the geometry of a clip's window of video.frames frames from `start`.

    EvaluationError without depth or instance ids, and where the model's views are no whole part of the stored ones.
    """
    if pair.depth_m is None or pair.instance is None:
        raise EvaluationError(
            f"not measured: clip {pair.key} lacks depth or instance ids: plan its split among ground_truth_splits, or "
            "convert it with VIEW.depth.npy and VIEW.instance.npy."
        )
    chosen = chosen_frames(video.frames)
    places = start + chosen
    if places[-1] >= len(pair.cameras.time_s):
        raise EvaluationError(
            f"not measured: clip {pair.key} has {len(pair.cameras.time_s)} frames and a window of {video.frames} from "
            f"{start} does not fit: give an earlier start."
        )
    with np.errstate(divide="ignore"):
        inverse = cut((1 / pair.depth_m[:, places]).astype(np.float32), video.views)
    ids = cut(pair.instance[:, places].astype(np.int32), video.views).astype(np.uint16)
    views = inverse.shape[1]
    side = 1 if video.views == "front" else 2
    height, width = video.height // side, video.width // side
    stored_height, stored_width = inverse.shape[-2:]
    if stored_height % height or stored_width % width:
        raise EvaluationError(
            f"not measured: the model's views of {width}x{height} are no whole part of clip {pair.key}'s "
            f"{stored_width}x{stored_height}: choose another model size."
        )
    down, across = stored_height // height, stored_width // width
    stored_K = pair.cameras.K[:, :views]
    focal, rendered = float(stored_K[0, 0, 0, 0]), pair.meta["rendered_view"]
    before = taken_before_centre(rendered[1], stored_height), taken_before_centre(rendered[0], stored_width)
    inverse = centred(inverse, ids, focal, before)
    small, small_ids = shrunk(inverse, ids, focal, down, across)
    return WindowTruth(
        frames=chosen,
        c2w=np.ascontiguousarray(pair.cameras.c2w[:, :views, places]),
        cars=MIRROR @ carla_matrix(pair.cameras.agent_pose[:, places]),
        K=stored_K * np.array([1 / across, 1 / down, 1.0])[:, None],
        inverse=thinned(small),
        ids=small_ids,
        other=blocks(others(ids), down, across).mean(-1, dtype=np.float32),
        stored_K=stored_K,
        stored_inverse=inverse,
    )


def as_frames(views: torch.Tensor, frames: np.ndarray) -> np.ndarray:
    """Return the chosen frames of views [A, V, T, 3, h, w] in [0, 1] as [A, V, T', h, w, 3] float32."""
    return np.ascontiguousarray(np.moveaxis(views.float().numpy()[:, :, frames], -3, -1))
