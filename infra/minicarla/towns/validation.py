"""Checks OpenDRIVE texts with the real client's `carla.Map`, in a process of its own: bad text can crash it (trap 14:
malformed OpenDRIVE segfaults the client)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

from .errors import TownError
from .job import TownJob, read_line


@dataclass(frozen=True)
class MapReport:
    """A road network as `carla.Map` sees it."""

    waypoints: int
    """Waypoints of the driving lanes, one every 2 m."""
    topology_edges: int
    junctions: int
    four_way_junctions: int
    """Junctions that four or more roads lead into."""
    lane_m_without_next: int
    """Metres of lanes within 2 m of an end that nothing follows: the town's dead ends."""
    lane_km: float


def map_report(text: str) -> MapReport:
    """Return what `carla.Map` sees. TownError for a text without lanes; other bad text can end the process."""
    import carla

    network = carla.Map("probe", text)
    waypoints = network.generate_waypoints(2.0)
    if not waypoints:
        raise TownError("it has no driving lane that carla.Map can see; repair the file")
    junctions: dict[int, Any] = {}
    dead_ends = four_way = 0
    for waypoint in waypoints:
        if waypoint.is_junction:
            junctions.setdefault(waypoint.get_junction().id, waypoint.get_junction())
        elif not waypoint.next(2.0):
            dead_ends += 2
    for junction in junctions.values():
        before = [way.previous(1.0) for way, _ in junction.get_waypoints(carla.LaneType.Driving)]
        four_way += len({ways[0].road_id if ways else None for ways in before}) >= 4
    return MapReport(
        waypoints=len(waypoints),
        topology_edges=len(network.get_topology()),
        junctions=len(junctions),
        four_way_junctions=four_way,
        lane_m_without_next=dead_ends,
        lane_km=len(waypoints) * 2.0 / 1000,
    )


def validate_opendrives(texts: Sequence[str], timeout_s: float = 120.0) -> list[MapReport]:
    """Return the reports of several texts, made in one process. TownError names the first that is unusable."""
    reports: list[MapReport] = []

    def read(answer: IO[bytes]) -> None:
        for _ in texts:
            reports.append(MapReport(**read_line(answer)))

    try:
        TownJob("report", texts=list(texts)).run(read, timeout_s)
    except TownError as error:
        raise TownError(f"OpenDRIVE text number {len(reports)} is not usable by carla.Map: {error}") from error
    return reports


def validate_opendrive(text: str, timeout_s: float = 120.0) -> MapReport:
    """Return the report of one text, made in a process of its own. TownError if the client can't use it."""
    return validate_opendrives([text], timeout_s)[0]
