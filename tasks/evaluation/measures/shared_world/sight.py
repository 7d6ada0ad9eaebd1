"""Where a pixel's point of the world shows in other cameras, tested for occlusion with their depth."""

from __future__ import annotations

import numpy as np
from numba import njit

from tasks.evaluation.measures.shared_world.world import WindowTruth

NOWHERE, UNSEEN, UNCLEAR, SEEN = 0, 1, 2, 3
"""The pixel has no depth, or its car no pose, to go by; outside or hidden; at an edge of depth, where it may be seen;
seen."""
NEAREST_M = 0.05
TOLERANCE = 0.02
"""How far inverse depths may differ, as a share: on a plane they are equal to rounding. The back of a wall that is
thinner than this share of its distance counts as seen."""


@njit(cache=True, nogil=True)
def trace(
    inverse: np.ndarray,
    ids: np.ndarray,
    K: np.ndarray,
    c2w: np.ndarray,
    moves: np.ndarray,
    target_inverse: np.ndarray,
    target_K: np.ndarray,
    target_w2c: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Follow the pixels of one agent's views into the views of another.

    inverse, ids [V, h, w]; K [V, 3, 3]; c2w [V, 4, 4]; moves [M, 4, 4]: what the points of id 1..M undergo before;
    target_inverse [W, H, B]; target_K, target_w2c [W, ...]. Returns state uint8 [V, h, w], the target's view int8
    and its place float32 [V, h, w, 2] (x, y) as shares of its width and height.
    """
    views, height, width = inverse.shape
    targets, rows, columns = target_inverse.shape
    state = np.zeros((views, height, width), np.uint8)
    place = np.zeros((views, height, width, 2), np.float32)
    view = np.full((views, height, width), -1, np.int8)
    for v in range(views):
        for y in range(height):
            for x in range(width):
                q = inverse[v, y, x]
                if not q > 0:
                    continue
                z = 1.0 / q
                a = (x + 0.5 - K[v, 0, 2]) / K[v, 0, 0] * z
                b = (y + 0.5 - K[v, 1, 2]) / K[v, 1, 1] * z
                m = c2w[v]
                px = m[0, 0] * a + m[0, 1] * b + m[0, 2] * z + m[0, 3]
                py = m[1, 0] * a + m[1, 1] * b + m[1, 2] * z + m[1, 3]
                pz = m[2, 0] * a + m[2, 1] * b + m[2, 2] * z + m[2, 3]
                k = ids[v, y, x]
                if 0 < k <= len(moves):
                    n = moves[k - 1]
                    px, py, pz = (
                        n[0, 0] * px + n[0, 1] * py + n[0, 2] * pz + n[0, 3],
                        n[1, 0] * px + n[1, 1] * py + n[1, 2] * pz + n[1, 3],
                        n[2, 0] * px + n[2, 1] * py + n[2, 2] * pz + n[2, 3],
                    )
                    if not np.isfinite(px):
                        continue
                best = UNSEEN
                for t in range(targets):
                    w = target_w2c[t]
                    depth = w[2, 0] * px + w[2, 1] * py + w[2, 2] * pz + w[2, 3]
                    if depth < NEAREST_M:
                        continue
                    across = w[0, 0] * px + w[0, 1] * py + w[0, 2] * pz + w[0, 3]
                    down = w[1, 0] * px + w[1, 1] * py + w[1, 2] * pz + w[1, 3]
                    c = target_K[t, 0, 0] * across / depth + target_K[t, 0, 2]
                    r = target_K[t, 1, 1] * down / depth + target_K[t, 1, 2]
                    if c < 0 or r < 0 or c >= columns or r >= rows:
                        continue
                    i = min(max(int(np.floor(r - 0.5)), 0), rows - 2)
                    j = min(max(int(np.floor(c - 0.5)), 0), columns - 2)
                    fr, fc = r - 0.5 - i, c - 0.5 - j
                    q00, q01 = target_inverse[t, i, j], target_inverse[t, i, j + 1]
                    q10, q11 = target_inverse[t, i + 1, j], target_inverse[t, i + 1, j + 1]
                    there = (1 - fr) * ((1 - fc) * q00 + fc * q01) + fr * ((1 - fc) * q10 + fc * q11)
                    here = 1.0 / depth
                    slack = TOLERANCE * here
                    if abs(here - there) <= slack:
                        found = SEEN
                    elif min(q00, q01, q10, q11) - slack <= here <= max(q00, q01, q10, q11) + slack:
                        found = UNCLEAR
                    else:
                        continue
                    if found > best:
                        best = found
                        view[v, y, x] = t
                        place[v, y, x, 0] = c / columns
                        place[v, y, x, 1] = r / rows
                state[v, y, x] = best
    return state, view, place


def look(
    world: WindowTruth, agent: int, frame: int, target: int, target_frame: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Follow an agent's pixels at one of the world's frames into a target's views at one of its frames.

    Points on the agents' cars are carried along with the cars. Returns state [V, h, w] (NOWHERE, UNSEEN, UNCLEAR,
    SEEN), view [V, h, w] (-1: none) and place [V, h, w, 2] as `trace`.
    """
    moves = world.cars[:, target_frame] @ np.linalg.inv(world.cars[:, frame])
    return trace(
        world.inverse[agent, :, frame],
        world.ids[agent, :, frame],
        world.K[agent],
        world.c2w[agent, :, frame],
        moves,
        world.stored_inverse[target, :, target_frame],
        world.stored_K[target],
        np.linalg.inv(world.c2w[target, :, target_frame]),
    )
