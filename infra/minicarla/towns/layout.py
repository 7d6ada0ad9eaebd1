"""A road layout: junctions and dead ends as nodes, streets with a cross-section between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from .curves import XY, Path, parallel, rounded, smooth
from .errors import TownError


@dataclass(frozen=True)
class Profile:
    """Cross-section of a street, the same all along. Metres."""

    forward: int = 1
    """Lanes along the street's direction."""
    backward: int = 1
    lane_m: float = 3.5
    median_m: float = 0.0
    shoulder_m: float = 0.0
    sidewalk_m: float = 0.0
    centre: str = "broken"
    """Type of the line between the directions: broken, solid or double (two solid ones)."""
    centre_colour: str = "white"
    edge: str = "solid"
    """Type of the line at the outer edges: solid, broken or none."""

    def reach(self, forward: bool) -> float:
        """Distance from the reference line to the outer edge of the driving lanes on one side."""
        lanes = self.forward if forward else self.backward
        return self.median_m / 2 + lanes * self.lane_m if lanes else 0.0

    def lane_id(self, forward: bool, k: int) -> int:
        """OpenDRIVE id of the k-th driving lane (0 = innermost)."""
        number = k + 1 + (self.median_m > 0)
        return -number if forward else number

    def inner_edge(self, k: int) -> float:
        """Distance from the reference line to the inner edge of the k-th driving lane."""
        return self.median_m / 2 + k * self.lane_m


@dataclass(frozen=True)
class Street:
    start: int
    end: int
    path: Path
    profile: Profile
    offset_m: float = 0.0
    """How far the reference line lies to the right of the line between the nodes."""


@dataclass(frozen=True)
class JunctionArm:
    """One end of a street at a node: (x, y) of the trimmed end and the heading away from the node."""

    street: int
    at_end: bool
    x: float
    y: float
    heading: float


@dataclass
class Layout:
    """Built by the generators: `node`, then `street` (straight legs) or `curve` (clothoids)."""

    corner_m: float = 5.0
    """Kerb radius at junctions."""
    nodes: list[XY] = field(default_factory=list)
    streets: list[Street] = field(default_factory=list)

    def node(self, x: float, y: float) -> int:
        self.nodes.append((float(x), float(y)))
        return len(self.nodes) - 1

    def street(self, a: int, b: int, profile: Profile, via: Sequence[XY] = (), radius: float = 25.0) -> None:
        """Straight legs from node a over `via` to node b, corners rounded."""
        path = rounded([self.nodes[a], *via, self.nodes[b]], radius)
        self.streets.append(Street(a, b, path, profile))

    def carriageway(self, a: int, b: int, profile: Profile, offset_m: float) -> None:
        """A one-way street from a to b, `offset_m` to the right of the line between them."""
        path = rounded(parallel([self.nodes[a], self.nodes[b]], offset_m), 0.0)
        self.streets.append(Street(a, b, path, profile, offset_m))

    def curve(
        self,
        a: int,
        b: int,
        profile: Profile,
        via: Sequence[XY] = (),
        headings_deg: tuple[float | None, float | None] = (None, None),
    ) -> None:
        """Clothoids from node a over `via` to node b; headings at both ends in degrees."""
        first, last = (None if h is None else math.radians(h) for h in headings_deg)
        self.streets.append(Street(a, b, smooth([self.nodes[a], *via, self.nodes[b]], first, last), profile))

    def ends(self, node: int) -> list[tuple[int, bool]]:
        """(street, at_end) of all streets that meet at a node."""
        return [
            (k, at_end)
            for k, s in enumerate(self.streets)
            for at_end in (False, True)
            if (s.end if at_end else s.start) == node
        ]

    def trimmed(self) -> list[Path]:
        """The streets' paths without what lies inside their junctions."""
        cuts = [[0.0, 0.0] for _ in self.streets]
        for node in range(len(self.nodes)):
            ends = self.ends(node)
            if len(ends) == 2 and not all(self.streets[k].offset_m for k, _ in ends):
                raise TownError(f"node {node} at {self.nodes[node]} joins only two streets: draw one street with `via`")
            if len(ends) > 2:
                for (k, at_end), cut in zip(ends, self._clearances(ends), strict=True):
                    cuts[k][at_end] = cut
        return [s.path.trim(*cut) for s, cut in zip(self.streets, cuts, strict=True)]

    def _clearances(self, ends: Sequence[tuple[int, bool]]) -> list[float]:
        """Metres to cut from each end so that the kerbs of neighbouring arms leave room for the corners."""
        away, reach = [], []
        for k, at_end in ends:
            street = self.streets[k]
            heading = street.path.at(street.path.length)[2] + math.pi if at_end else street.path.at(0.0)[2]
            away.append(heading)
            reach.append(max(street.profile.reach(True), street.profile.reach(False)) + abs(street.offset_m))
        cuts = []
        for i, a in enumerate(away):
            cut = 6.0
            for j, b in enumerate(away):
                angle = abs(math.remainder(b - a, 2 * math.pi))
                if math.radians(20) < angle < math.radians(160):
                    edge = (reach[j] + reach[i] * math.cos(angle)) / math.sin(angle)
                    cut = max(cut, edge + self.corner_m / math.tan(angle / 2))
            cuts.append(cut)
        return cuts

    def arms(self, node: int, paths: Sequence[Path]) -> list[JunctionArm]:
        """The arms of a node, counter-clockwise by where they meet it. `paths` are the trimmed ones."""
        x0, y0 = self.nodes[node]
        arms = []
        for k, at_end in self.ends(node):
            x, y, heading = paths[k].at(paths[k].length if at_end else 0.0)
            arms.append(JunctionArm(k, at_end, x, y, heading + math.pi if at_end else heading))
        return sorted(arms, key=lambda arm: math.atan2(arm.y - y0, arm.x - x0))
