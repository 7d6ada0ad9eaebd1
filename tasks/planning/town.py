"""The scenes of one town, drawn one after another."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from typing import Any

import numpy as np

from infra.storage import sha256_bytes
from tasks.planning.drives import draw_drive
from tasks.planning.errors import TooFewSites
from tasks.planning.preset import PlanPreset
from tasks.planning.roads import RoadNetwork
from tasks.planning.rows import plan_row, seed_of_text
from tasks.planning.site_order import BalancedOrder, RandomOrder, SiteOrder
from tasks.planning.sites import find_sites


def scheduled_type_and_weather(preset: PlanPreset, town_index: int, number: int) -> tuple[str, str]:
    """Return trajectory type and weather of a town's `number`-th recording.

    A Latin square: with 6 types, 3 weathers and 12 towns, 36 recordings have every type 6 times, every weather 12 times
    and every pair of them twice, and the three recordings of a town differ in both.
    """
    types, weathers = preset.trajectory_types, preset.weathers
    half = max(len(types) // 2, 1)
    step = 2 if len(types) > 2 else 1
    trajectory_type = types[(town_index + step * number + number // half) % len(types)]
    return trajectory_type, weathers[(town_index + number) % len(weathers)]


def share_by_type(preset: PlanPreset, town_index: int) -> Counter[str]:
    """Count the recordings that a town is to have of each trajectory type."""
    numbers = range(preset.recordings_per_town)
    return Counter(scheduled_type_and_weather(preset, town_index, number)[0] for number in numbers)


class TownPlan:
    """Draws a town's scenes one after another."""

    def __init__(self, preset: PlanPreset, town: str, roads: RoadNetwork, opendrive_sha256: str) -> None:
        self.preset, self.town, self.roads, self.opendrive_sha256 = preset, town, roads, opendrive_sha256
        self.town_index = preset.towns.index(town)
        self.sites: dict[str, SiteOrder] = {}

    @classmethod
    def of_map(cls, preset: PlanPreset, town: str, opendrive: str) -> TownPlan:
        """Return the plan of a town of which this is the OpenDRIVE text."""
        return cls(preset, town, RoadNetwork(town, opendrive), sha256_bytes(opendrive.encode()))

    def planned_rows(self) -> list[dict[str, Any]]:
        """Return the rows of the town's share. TooFewSites where sites run out and the preset does not allow it."""
        rows = []
        for number in range(self.preset.recordings_per_town):
            trajectory_type, weather = scheduled_type_and_weather(self.preset, self.town_index, number)
            try:
                rows += self.scene_rows(trajectory_type, weather, number)
            except TooFewSites:
                if self.preset.short_towns == "refuse":
                    raise
        return rows

    def spare_rows(self) -> list[dict[str, Any]]:
        """Return the rows of spare scenes, type by type, drawn after the planned ones; fewer where sites run out."""
        number, rows = self.preset.recordings_per_town, []
        for trajectory_type, planned in share_by_type(self.preset, self.town_index).items():
            for _ in range(math.ceil(self.preset.spare_share * planned)):
                _, weather = scheduled_type_and_weather(self.preset, self.town_index, number)
                with contextlib.suppress(TooFewSites):
                    rows += self.scene_rows(trajectory_type, weather, number)
                number += 1
        return rows

    def scene_rows(self, trajectory_type: str, weather: str, number: int) -> list[dict[str, Any]]:
        """Return the rows of the town's `number`-th scene: its base and, where the preset asks for it, its variant.

        TooFewSites when no site of the type is left.
        """
        preset, sites = self.preset, self.sites_of(trajectory_type)
        while taken := sites.take():
            site, repeat = taken
            key = [preset.seed, seed_of_text(self.town), seed_of_text(trajectory_type), seed_of_text(site.name), number]
            base = draw_drive(preset, site, key)
            if base is None:
                sites.drop()
                continue
            split = preset.split_of(self.town)
            variants = {"base": base}
            if preset.other_trajectories and split != "train" and (other := draw_drive(preset, site, key, base)):
                variants["other_trajectory"] = other
            shared = {
                "town": self.town,
                "opendrive_sha256": self.opendrive_sha256,
                "trajectory_type": trajectory_type,
                "weather": weather,
                "split": split,
            }
            return [
                plan_row(preset, shared, {"name": site.name}, jitter | {"repeat": repeat}, poses, variant, key)
                for variant, (jitter, poses) in variants.items()
            ]
        raise TooFewSites(
            f"town {self.town} has {sites.count} sites of type {trajectory_type!r}, too few for "
            f"{preset.recordings_per_town} recordings per town: lower recordings_per_town, raise repeats, add towns, "
            "or set short_towns to 'less'."
        )

    def sites_of(self, trajectory_type: str) -> SiteOrder:
        """Return the town's sites of a type. TooFewSites where it has none and the preset does not allow it."""
        preset = self.preset
        if trajectory_type not in self.sites:
            try:
                sites = find_sites(self.roads, trajectory_type, preset.max_oncoming_m)
            except TooFewSites:
                if preset.short_towns == "refuse" and preset.shares == "equal":
                    raise
                sites = []
            rng = np.random.default_rng([preset.seed, seed_of_text(self.town), seed_of_text(trajectory_type)])
            self.sites[trajectory_type] = (
                BalancedOrder(sites, rng, preset.repeats, preset.recordings_per_junction)
                if preset.shares == "capacity"
                else RandomOrder(sites, rng, preset.repeats)
            )
        return self.sites[trajectory_type]
