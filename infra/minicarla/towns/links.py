"""Which ends of the roads lead on, as the map's links and junctions say."""

from __future__ import annotations

import xml.etree.ElementTree as ET

RoadEnd = tuple[str, bool]
"""A road's id; its end (True) or its start (False)."""


def joined_ends(root: ET.Element) -> set[RoadEnd]:
    """The road ends that another road is linked to, or that a junction has a connection from."""
    incoming = {
        (junction.get("id"), connection.get("incomingRoad"))
        for junction in root.iter("junction")
        for connection in junction.iterfind("connection")
    }
    joined: set[RoadEnd] = set()
    for road in root.iter("road"):
        number = road.get("id", "")
        for tag, at_end in (("predecessor", False), ("successor", True)):
            link = road.find(f"link/{tag}")
            if link is None:
                continue
            other = link.get("elementId", "")
            if link.get("elementType") != "junction":
                joined |= {(number, at_end), (other, link.get("contactPoint") == "end")}
            elif (other, number) in incoming:
                joined.add((number, at_end))
    return joined
