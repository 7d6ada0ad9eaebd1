"""Checks OpenDRIVE texts with the real client's `carla.Map`, in a process of its own: bad text can crash it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from .errors import TownError

_PROBE = """
import json, sys
import carla
for text in json.load(sys.stdin):
    m = carla.Map("probe", text)
    waypoints = m.generate_waypoints(2.0)
    junctions, four_way, dead_ends = {}, 0, 0
    for w in waypoints:
        if w.is_junction:
            junctions.setdefault(w.get_junction().id, w.get_junction())
        elif not w.next(2.0):
            dead_ends += 2
    for j in junctions.values():
        arms = {a.previous(1.0)[0].road_id if a.previous(1.0) else None for a, b in
                j.get_waypoints(carla.LaneType.Driving)}
        four_way += len(arms) >= 4
    print(json.dumps({
        "waypoints": len(waypoints), "topology_edges": len(m.get_topology()), "junctions": len(junctions),
        "four_way_junctions": four_way, "lane_m_without_next": dead_ends, "lane_km": len(waypoints) * 2.0 / 1000,
    }), flush=True)
"""


@dataclass(frozen=True)
class MapReport:
    """What `carla.Map` sees in a road network."""

    waypoints: int
    """Of the driving lanes, one every 2 m."""
    topology_edges: int
    junctions: int
    four_way_junctions: int
    """Junctions that four or more roads lead into."""
    lane_m_without_next: int
    """Metres of lanes within 2 m of an end that nothing follows: the town's dead ends."""
    lane_km: float


def validate_opendrives(texts: Sequence[str], timeout_s: float = 120.0) -> list[MapReport]:
    """Reports of several texts from one subprocess. TownError names the first one that the client can't use."""
    done = subprocess.run(
        [sys.executable, "-c", _PROBE], input=json.dumps(list(texts)), capture_output=True, text=True, timeout=timeout_s
    )
    reports = [MapReport(**json.loads(line)) for line in done.stdout.splitlines()]
    if done.returncode or len(reports) != len(texts):
        reason = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise TownError(
            f"OpenDRIVE text number {len(reports)} is not usable by carla.Map: it ended with code {done.returncode} "
            f"({reason[0]}); repair the file"
        )
    for k, report in enumerate(reports):
        if not report.waypoints:
            raise TownError(f"OpenDRIVE text number {k} has no driving lane that carla.Map can see; repair the file")
    return reports


def validate_opendrive(text: str, timeout_s: float = 120.0) -> MapReport:
    """Report of one text, made in a subprocess; TownError if the client can't use it."""
    return validate_opendrives([text], timeout_s)[0]
