"""Pose following: does the video move as the given trajectory says?

Definition: each pixel of frame t + g that shows something static is put in place by true depth and pose and looked for
in the same agent's views of frame t; where it is surely seen (occlusion-tested), the *generated* colour there and the
generated colour here form a pair. `pose_correlation` is the correlation of these colours over the window, all agents;
g is GAP frames or the next measured one after it, frame 0 may be the earlier one. The same pairs without any movement
(each pixel with itself g frames before) give `still_correlation`: a video that stands still has 1 there.
`pose_following` = (c - floor) / (ceiling - floor): floor, another scene's true video on this trajectory (equally: this
video on a shuffled trajectory); ceiling, the ground truth.
Range: correlation -1..1; pose_following 0 .. 1, not clipped.
Failure cases: slow cars and empty scenery leave floor and ceiling close together, then nothing is said; a standing
video has a high correlation where little moves: read the copied first frame's figure beside; reflections and shadows of
cars move against the geometry.
Source: reprojection consistency, as Sampson or RPE errors in camera-control papers, here with the true geometry.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tasks.evaluation.measures.shared_world.colours import Colours
from tasks.evaluation.measures.shared_world.sight import SEEN, look
from tasks.evaluation.measures.shared_world.world import WindowTruth
from tasks.planning.rows import FIRST_EXTRA_ID

GAP = 4
"""Frames between the two that are compared: at 10 Hz 0.4 s, some metres."""


def frame_pairs(frames: np.ndarray) -> list[tuple[int, int]]:
    """Return positions (earlier, later) of measured frames, GAP frames apart or the least more that is measured."""
    pairs = []
    for earlier, place in enumerate(frames):
        later = int(np.searchsorted(frames, place + GAP))
        if later < len(frames):
            pairs.append((earlier, later))
    return pairs


def measure_pose_following(world: WindowTruth, videos: Mapping[str, np.ndarray]) -> dict[str, dict[str, float | None]]:
    """Return pose_correlation and still_correlation by row of videos [A, V, T, h, w, 3]; None: too little shows."""
    moving, still = {row: Colours() for row in videos}, {row: Colours() for row in videos}
    here, place_here = identity(world)
    for earlier, later in frame_pairs(world.frames):
        for agent in range(world.agents):
            state, view, place = look(world, agent, later, agent, earlier)
            ids = world.ids[agent, :, later]
            use = (state == SEEN) & ((ids == 0) | (ids >= FIRST_EXTRA_ID))  # other vehicles stand still
            for row, video in videos.items():
                pictures = video[agent, :, later], video[agent, :, earlier]
                moving[row].add(use, view, place, *pictures)
                still[row].add(use, here, place_here, *pictures)
    return {
        row: {"pose_correlation": moving[row].correlation(), "still_correlation": still[row].correlation()}
        for row in videos
    }


def identity(world: WindowTruth) -> tuple[np.ndarray, np.ndarray]:
    """Return view [V, h, w] and place [V, h, w, 2] of each pixel itself."""
    views, height, width = world.inverse.shape[1], *world.inverse.shape[-2:]
    view = np.broadcast_to(np.arange(views, dtype=np.int8)[:, None, None], (views, height, width))
    x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    place = np.broadcast_to(np.stack([x, y], -1).astype(np.float32), (views, height, width, 2))
    return np.ascontiguousarray(view), np.ascontiguousarray(place)
