"""A `Layout` as OpenDRIVE text, written as in CARLA's own maps: one one-way connecting road per manoeuvre, junction
ids that are no road ids."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from dataclasses import dataclass

from scenariogeneration import xodr

from .curves import Path, hermite
from .errors import TownError
from .layout import JunctionArm, Layout, Profile

GEO_REFERENCE = "+proj=tmerc +lat_0=49 +lon_0=8 +k=1 +x_0=0 +y_0=0 +datum=WGS84 +units=m +no_defs"
FIRST_JUNCTION_ID = 5000
STOP_ZONE_M = 15.0
"""Where overtaking ends before a junction: the centre line turns solid."""


def write_opendrive(name: str, layout: Layout) -> str:
    """OpenDRIVE 1.4 text, the same bytes for the same layout."""
    paths = layout.trimmed()
    drive = xodr.OpenDrive(name, revMajor="1", revMinor="4", geo_reference=GEO_REFERENCE)
    for k, (street, path) in enumerate(zip(layout.streets, paths, strict=True)):
        road = xodr.Road(k + 1, _plan_view(path), _street_lanes(street.profile, path.length), name=f"street {k + 1}")
        for node, link in ((street.start, road.add_predecessor), (street.end, road.add_successor)):
            if len(layout.ends(node)) > 2:
                link(xodr.ElementType.junction, FIRST_JUNCTION_ID + node)
        road.add_type(xodr.RoadType.town, 0, "country")
        drive.add_road(road)
    next_id = len(layout.streets) + 1
    for node in range(len(layout.nodes)):
        if len(layout.ends(node)) > 2:
            next_id = _write_junction(drive, layout, node, layout.arms(node, paths), next_id)
    if next_id > FIRST_JUNCTION_ID:
        raise TownError(f"{name} has {next_id - 1} roads, more than {FIRST_JUNCTION_ID - 1}: make it smaller")
    element = drive.get_element()
    header = element.find("header")
    assert header is not None
    header.set("date", "2026-01-01T00:00:00")
    ET.indent(element)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(element, encoding="unicode") + "\n"


def _plan_view(path: Path) -> xodr.PlanView:
    view = xodr.PlanView()
    s = 0.0
    for piece in path.pieces:
        length, start = round(piece.length, 6), round(piece.curvature, 10)
        geometry: xodr.Line | xodr.Arc | xodr.Spiral
        if piece.sharpness:
            geometry = xodr.Spiral(start, round(piece.curvature + piece.sharpness * piece.length, 10), length)
        elif start:
            geometry = xodr.Arc(start, length=length)
        else:
            geometry = xodr.Line(length)
        heading = math.remainder(piece.heading, 2 * math.pi)
        view.add_fixed_geometry(geometry, round(piece.x, 6), round(piece.y, 6), round(heading, 10), round(s, 6))
        s += length
    return view


def _mark(kind: str, colour: str = "white", width: float = 0.15, s_offset: float = 0.0) -> xodr.RoadMark:
    types = {
        "solid": xodr.RoadMarkType.solid,
        "broken": xodr.RoadMarkType.broken,
        "double": xodr.RoadMarkType.solid_solid,
        "none": xodr.RoadMarkType.none,
    }
    colours = {"white": xodr.RoadMarkColor.white, "yellow": xodr.RoadMarkColor.yellow}
    change = xodr.LaneChange.both if kind == "broken" else xodr.LaneChange.none
    return xodr.RoadMark(types[kind], width, soffset=round(s_offset, 3), color=colours[colour], laneChange=change)


def _lane(kind: xodr.LaneType, start_m: float, end_m: float, length: float, mark: xodr.RoadMark) -> xodr.Lane:
    lane = xodr.Lane(kind, round(start_m, 4), round((end_m - start_m) / length, 8))
    lane.add_roadmark(mark)
    return lane


def _street_lanes(profile: Profile, length: float) -> xodr.Lanes:
    centre = xodr.Lane()
    if profile.median_m or not profile.backward:
        centre.add_roadmark(_mark("none" if profile.median_m else "solid", profile.centre_colour))
    else:
        passing = profile.centre == "broken" and length > 3 * STOP_ZONE_M
        kind = "solid" if profile.centre == "broken" and not passing else profile.centre
        centre.add_roadmark(_mark("solid" if passing else kind, profile.centre_colour))
        if passing:
            centre.add_roadmark(_mark("broken", profile.centre_colour, s_offset=STOP_ZONE_M))
            centre.add_roadmark(_mark("solid", profile.centre_colour, s_offset=length - STOP_ZONE_M))
    section = xodr.LaneSection(0, centre)
    for count, add in ((profile.backward, section.add_left_lane), (profile.forward, section.add_right_lane)):
        for lane in _side(profile, count, length):
            add(lane)
    lanes = xodr.Lanes()
    lanes.add_lanesection(section)
    return lanes


def _side(profile: Profile, count: int, length: float) -> list[xodr.Lane]:
    """Lanes of one side from the inside out: median half, driving lanes, shoulder, sidewalk."""
    lanes = []
    if profile.median_m and count:
        half = profile.median_m / 2
        lanes.append(_lane(xodr.LaneType.median, half, half, length, _mark("solid", profile.centre_colour)))
    for k in range(count):
        mark = _mark("broken") if k < count - 1 else _mark(profile.edge)
        lanes.append(_lane(xodr.LaneType.driving, profile.lane_m, profile.lane_m, length, mark))
    for kind, width in _outer(profile):
        if width:
            lanes.append(_lane(kind, width, width, length, _mark("none")))
    return lanes


def _outer(profile: Profile) -> tuple[tuple[xodr.LaneType, float], ...]:
    return (xodr.LaneType.shoulder, profile.shoulder_m), (xodr.LaneType.sidewalk, profile.sidewalk_m)


@dataclass(frozen=True)
class LaneLink:
    """From the k-th lane into the junction on arm `source` to the k-th lane out of it on arm `target`."""

    source: int
    source_lane: int
    target: int
    target_lane: int


def manoeuvres(layout: Layout, arms: list[JunctionArm]) -> list[LaneLink]:
    """What drivers may do: straight on in their lane, right from the outer and left from the inner lane, no U-turn."""
    found: list[LaneLink] = []
    for i, a in enumerate(arms):
        lanes_in = _lanes(layout, a, into=True)
        options = []
        for j, b in enumerate(arms):
            lanes_out = _lanes(layout, b, into=False)
            turn = math.degrees(math.remainder(b.heading - a.heading - math.pi, 2 * math.pi))
            if i == j or not lanes_in or not lanes_out or abs(turn) > 150:
                continue
            options.append((abs(turn), j, lanes_out))
            if abs(turn) < 40:
                found += [LaneLink(i, k, j, k) for k in range(min(lanes_in, lanes_out))]
            elif turn < 0:
                found.append(LaneLink(i, lanes_in - 1, j, lanes_out - 1))
            else:
                found.append(LaneLink(i, 0, j, 0))
        stuck = sorted(set(range(lanes_in)) - {m.source_lane for m in found if m.source == i})
        if options:
            _, j, lanes_out = min(options)
            found += [LaneLink(i, k, j, min(k, lanes_out - 1)) for k in stuck]
    return found


def _lanes(layout: Layout, arm: JunctionArm, into: bool) -> int:
    profile = layout.streets[arm.street].profile
    return profile.forward if arm.at_end == into else profile.backward


def _write_junction(drive: xodr.OpenDrive, layout: Layout, node: int, arms: list[JunctionArm], next_id: int) -> int:
    junction = xodr.Junction(f"junction {node}", FIRST_JUNCTION_ID + node)
    for m in manoeuvres(layout, arms):
        a, b = arms[m.source], arms[m.target]
        road, lane_in = _connecting_road(layout, junction.id, next_id, m, arms)
        road.add_predecessor(xodr.ElementType.road, a.street + 1, _contact(a))
        road.add_successor(xodr.ElementType.road, b.street + 1, _contact(b))
        drive.add_road(road)
        connection = xodr.Connection(a.street + 1, next_id, xodr.ContactPoint.start)
        connection.add_lanelink(lane_in, -1)
        junction.add_connection(connection)
        next_id += 1
    drive.add_junction(junction)
    return next_id


def _contact(arm: JunctionArm) -> xodr.ContactPoint:
    return xodr.ContactPoint.end if arm.at_end else xodr.ContactPoint.start


def _connecting_road(
    layout: Layout, junction: int, road_id: int, m: LaneLink, arms: list[JunctionArm]
) -> tuple[xodr.Road, int]:
    """The connecting road (its reference line is the left edge of its one lane) and the id of the lane before it."""
    a, b = arms[m.source], arms[m.target]
    pa, pb = layout.streets[a.street].profile, layout.streets[b.street].profile
    heading_in = a.heading + math.pi
    start = _beside(a.x, a.y, heading_in, pa.inner_edge(m.source_lane))
    end = _beside(b.x, b.y, b.heading, pb.inner_edge(m.target_lane))
    path = hermite(start, heading_in, end, b.heading)
    lane_in, lane_out = pa.lane_id(a.at_end, m.source_lane), pb.lane_id(not b.at_end, m.target_lane)
    # The corner to the driver's right belongs to the manoeuvre that goes round it: it carries shoulder and sidewalk.
    corner = (
        m.target == (m.source + 1) % len(arms)
        and m.source_lane == _lanes(layout, a, into=True) - 1
        and m.target_lane == _lanes(layout, b, into=False) - 1
    )
    section = xodr.LaneSection(0, xodr.Lane())
    section.centerlane.add_roadmark(_mark("none"))
    driving = _lane(xodr.LaneType.driving, pa.lane_m, pb.lane_m, path.length, _mark("none"))
    driving.add_link("predecessor", lane_in)
    driving.add_link("successor", lane_out)
    section.add_right_lane(driving)
    if corner:
        for (kind, wa), (_, wb) in zip(_outer(pa), _outer(pb), strict=True):
            if wa or wb:
                section.add_right_lane(_lane(kind, wa, wb, path.length, _mark("none")))
    lanes = xodr.Lanes()
    lanes.add_lanesection(section)
    return xodr.Road(road_id, _plan_view(path), lanes, road_type=junction), lane_in


def _beside(x: float, y: float, heading: float, right: float) -> tuple[float, float]:
    return x + right * math.sin(heading), y - right * math.cos(heading)
