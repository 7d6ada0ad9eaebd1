"""Drives: one pair of trajectories at a site, with the jitter that it was drawn with."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tasks.planning.motion import MARGIN_M, closest_approach, drive, separation_m
from tasks.planning.preset import PlanPreset
from tasks.planning.sites import Site

DRAWS_PER_SITE = 12
"""Jitters that are drawn at a site before it is given up."""
NEAR_M = 8.0
"""Cars whose centres are farther apart than this cannot touch, however they stand."""
MEETING_M = 30.0
"""The cars come at least this close to each other."""
HEADWAY_M = (8.0, 14.0)
"""Range of the distance between the centres of cars that follow each other."""


def draw_jitter(
    preset: PlanPreset, site: Site, rng: np.random.Generator, partner_rng: np.random.Generator
) -> dict[str, Any]:
    """Draw one jitter. Car 1's values come from `partner_rng`, so that a variant can change them alone."""
    low, high = preset.min_speed_mps, preset.max_speed_mps
    cruise = float(rng.uniform(low, high))
    same_direction = site.headway_m > 0 or site.gap_s > 0
    partner_cruise = (
        cruise * float(partner_rng.uniform(0.95, 1.0)) if same_direction else float(partner_rng.uniform(low, high))
    )
    shift, lateral = preset.start_jitter_s, preset.lateral_jitter_m
    return {
        "cruise_mps": [round(cruise, 4), round(max(partner_cruise, low), 4)],
        "shift_s": [round(float(g.uniform(-shift, shift)), 4) for g in (rng, partner_rng)],
        "lateral_m": [round(float(g.uniform(-1, 1)) * lateral, 4) for g in (rng, partner_rng)],
        "headway_m": round(float(partner_rng.uniform(*HEADWAY_M)), 4) if site.headway_m else 0.0,
    }


def drive_pair(preset: PlanPreset, site: Site, jitter: dict[str, Any]) -> np.ndarray | None:
    """Return poses [ticks, 2, 6] float32 of cars that meet without touching; None where they cannot."""
    times = np.arange(preset.ticks) * preset.fixed_delta_s
    middle = times[-1] / 2
    for wait in np.arange(0.0, 2.5, 0.5):
        cars = []
        for agent, sign in ((0, -1), (1, 1)):
            cars.append(
                drive(
                    site.ways[agent],
                    times,
                    meet_s=middle + sign * (site.gap_s + wait * (site.gap_s > 0)) / 2 + jitter["shift_s"][agent],
                    cruise_mps=jitter["cruise_mps"][agent],
                    lateral_m=jitter["lateral_m"][agent],
                    ahead_m=-sign * jitter["headway_m"] / 2,
                    max_acceleration_mps2=preset.max_acceleration_mps2,
                )
            )
        if cars[0] is None or cars[1] is None:
            return None
        poses = np.stack([cars[0], cars[1]], 1).astype(np.float32)
        if keep_apart(poses) and closest_approach(poses)[1] <= MEETING_M:
            return poses
        if site.gap_s <= 0:
            return None
    return None


def keep_apart(poses: np.ndarray) -> bool:
    """Tell whether two cars never touch; poses [T, 2, 6]."""
    near = poses[np.linalg.norm(poses[:, 0, :2] - poses[:, 1, :2], axis=-1) < NEAR_M].astype(float)
    return not len(near) or bool(separation_m(near[:, 0], near[:, 1]).min() >= MARGIN_M)


class Drive(NamedTuple):
    """A drivable pair of trajectories."""

    jitter: dict[str, Any]
    poses: np.ndarray
    """[ticks, 2, 6] float32"""


def draw_drive(preset: PlanPreset, site: Site, key: list, base: Drive | None = None) -> Drive | None:
    """Draw jitters until one gives a drivable pair; None when none does.

    With a `base`, only car 1's part is drawn, and car 0 drives as it does there.
    """
    for number in range(DRAWS_PER_SITE):
        pace = base.jitter["attempt"] if base else number
        # later attempts are slower, which short roads need
        top_mps = preset.max_speed_mps - (preset.max_speed_mps - preset.min_speed_mps) * pace / (DRAWS_PER_SITE - 1)
        slower = preset.model_copy(update={"max_speed_mps": top_mps})
        rng = np.random.default_rng([*key, pace, 0])
        partner_rng = np.random.default_rng([*key, number, 2 if base else 1])
        jitter = draw_jitter(slower, site, rng, partner_rng)
        if base:
            jitter["headway_m"] = base.jitter["headway_m"]  # half of it is car 0's
        poses = drive_pair(preset, site, jitter)
        if poses is not None and (base is None or np.array_equal(poses[:, 0], base.poses[:, 0])):
            return Drive(jitter | {"attempt": pace}, poses)
    return None
