"""Co-visible agreement: what both agents see at one time looks the same in both videos.

Definition: every pixel of an agent's frame is put where it lies by the true depth and poses and looked for in the other
agent's views of the same frame; pixels that are surely seen there (occlusion-tested) form pairs of colours, one from
each *generated* video, bilinearly sampled. `covisible_correlation` is the correlation of these colours about each
channel's mean over the window, both directions together; frame 0, which is given, is left out.
`covisible_agreement` = (c - floor) / (ceiling - floor): the floor is the mean correlation of shuffled pairs (agent 0's
true video with another scene's agent 1), the ceiling that of the ground truth.
Range: correlation -1..1; agreement 0 (strangers) .. 1 (ground truth), not clipped.
Failure cases: two videos that are wrong in the same way agree (read it beside PSNR); a blurred video can lie above 1,
because fine texture sampled twice is what the ground truth loses on; a video without structure has no correlation and
is left out; reflections and fog depend on where one looks from, which lowers the ceiling, not the score.
Source: the paper, Figure 3b, claims it by pictures; warping with known geometry as in novel view synthesis.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tasks.evaluation.measures.metrics import GIVEN_FRAMES
from tasks.evaluation.measures.shared_world.colours import Colours
from tasks.evaluation.measures.shared_world.sight import SEEN, look
from tasks.evaluation.measures.shared_world.world import WindowTruth


def measure_covisible(world: WindowTruth, videos: Mapping[str, np.ndarray]) -> dict[str, dict[str, float | None]]:
    """Return covisible_correlation by row of videos [A, V, T, h, w, 3]; None where too little is co-visible."""
    found = {row: Colours() for row in videos}
    for frame in range(GIVEN_FRAMES, len(world.frames)):
        for agent in range(world.agents):
            for other in range(world.agents):
                if other == agent:
                    continue
                state, view, place = look(world, agent, frame, other, frame)
                for row, video in videos.items():
                    found[row].add(state == SEEN, view, place, video[agent, :, frame], video[other, :, frame])
    return {row: {"covisible_correlation": colours.correlation()} for row, colours in found.items()}


def shuffled(video: np.ndarray, stranger: np.ndarray) -> np.ndarray:
    """Return agent 0 of one video beside the other agents of another scene's, both [A, V, T, h, w, 3]: the floor."""
    return np.concatenate([video[:1], stranger[1:]])
