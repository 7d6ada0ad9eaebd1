"""What stands along the streets besides buildings: trees, lamps, traffic lights, fences, clutter, barriers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..scenery import Label
from .looks import RGB
from .lots import Frontage
from .painting import FREE, KEEP_CLEAR, WALK
from .placement import Builder, shade
from .road_network import Strip, driving


def trees_along(builder: Builder, frontage: Frontage) -> None:
    """A row of trees: on the sidewalk's outer edge, or a metre behind the edge of a road without one."""
    spacing = builder.look.street_tree_m
    if not spacing or frontage.length < 8:
        return
    inset = -0.35 if frontage.walk_m >= 2.4 else 1.0
    s = builder.between((3, spacing))
    while s < frontage.length - 2:
        place, _, out = frontage.at(s)
        if builder.stand(place + out * inset):
            builder.tree(place + out * inset, clear_m=2.6)
        s += spacing * builder.rng.uniform(0.85, 1.15)


def trees_on_medians(builder: Builder, strips: Sequence[Strip]) -> None:
    """A row of trees in the middle of the medians that are wide enough to keep off the lanes."""
    spacing = builder.look.street_tree_m
    for strip in strips:
        if not spacing or strip.kind != "median" or strip.lane > 0 or strip.junction >= 0:
            continue
        s = spacing
        while s < strip.s[-1] - spacing:
            place = np.array([np.interp(s, strip.s, strip.inner[:, k]) for k in (0, 1)])
            if builder.stand(place):
                builder.tree(place, clear_m=2.8)
            s += spacing


def lamps_along(builder: Builder, frontage: Frontage) -> None:
    """Lamp posts with an arm over the street."""
    spacing = builder.look.lamp_m
    if not spacing or frontage.length < 12:
        return
    s = spacing * builder.rng.uniform(0.2, 0.5)
    while s < frontage.length - 2:
        place, along, out = frontage.at(s)
        foot = place - out * 0.35 if frontage.walk_m >= 2.2 else place + out * 0.9
        if builder.stand(foot, radius=0.1):
            yaw, rgb = math.atan2(along[1], along[0]), builder.look.lamp_rgb
            builder.things.box(foot, 0.0, (0.07, 0.07, 3.1), yaw, rgb, Label.POLES)
            builder.things.box(foot - out * 0.7, 6.1, (0.09, 0.8, 0.06), yaw, rgb, Label.POLES)
        s += spacing


def traffic_lights(builder: Builder, strips: Sequence[Strip]) -> None:
    """A light on the right of each road that leads into a junction, if the town has lights. They show green."""
    if not builder.look.lights:
        return
    rightmost: dict[tuple[int, bool], Strip] = {}
    for strip in driving(strips):
        if strip.ends_in_junction:
            rightmost[strip.road, strip.forward] = strip
    for (_, forward), strip in sorted(rightmost.items(), key=lambda item: item[0]):
        end, before = (-1, -2) if forward else (0, 1)
        ahead = strip.outer[end] - strip.outer[before]
        ahead = ahead / max(float(np.hypot(*ahead)), 1e-9)
        right = np.array([-ahead[1], ahead[0]])
        foot = strip.outer[end] - ahead * 4.6 + right * 2.0
        if not builder.stand(foot, radius=0.1):
            continue
        yaw = math.atan2(ahead[1], ahead[0])
        builder.things.box(foot, 0.0, (0.08, 0.08, 1.6), yaw, (0.25, 0.26, 0.27), Label.POLES)
        builder.things.box(foot, 3.2, (0.17, 0.19, 0.5), yaw, (0.10, 0.10, 0.10), Label.TRAFFIC_LIGHT)
        builder.things.box(foot - ahead * 0.18, 3.28, (0.03, 0.11, 0.11), yaw, (0.15, 0.85, 0.35), Label.TRAFFIC_LIGHT)


_FENCES: dict[str, tuple[float, float, RGB, Label]] = {
    "hedge": (1.1, 0.7, (0.20, 0.36, 0.15), Label.VEGETATION),
    "wall": (1.0, 0.4, (0.62, 0.58, 0.52), Label.WALLS),
    "picket": (0.9, 0.12, (0.92, 0.92, 0.90), Label.FENCES),
    "rail": (1.1, 0.12, (0.45, 0.40, 0.34), Label.FENCES),
}
"""Height, thickness, colour, label."""


def fence_along(builder: Builder, frontage: Frontage) -> None:
    """Hedges, walls or fences before the gardens, with gaps for the drives."""
    if builder.look.fence == "none":
        return
    height, thick, rgb, label = _FENCES[builder.look.fence]
    s = builder.between((2, 8))
    while s < frontage.length - 4:
        length = builder.between((5, 9))
        place, along, out = frontage.at(s + length / 2)
        spot, yaw = place + out * (0.7 if frontage.walk_m else 1.9), math.atan2(along[1], along[0])
        if builder.rng.random() < 0.7 and builder.land.take(spot, (length / 2, thick / 2), yaw, WALK):
            tone = shade(builder.rng, rgb)
            if label == Label.FENCES:
                _boards(builder, spot, along, length, height, yaw, tone)
            else:
                builder.things.box(spot, 0.0, (length / 2, thick / 2, height / 2), yaw, tone, label)
        s += length + builder.rng.choice((0.3, 0.3, 4.0))


def _boards(
    builder: Builder, spot: np.ndarray, along: np.ndarray, length: float, height: float, yaw: float, rgb: RGB
) -> None:
    for z in (0.35, height - 0.25):
        builder.things.box(spot, z, (length / 2, 0.04, 0.07), yaw, rgb, Label.FENCES)
    for k in range(4):
        post = spot + along * length * 0.98 * (k / 3 - 0.5)
        builder.things.box(post, 0.0, (0.06, 0.06, height / 2), yaw, rgb, Label.FENCES)


_CONTAINERS: tuple[RGB, ...] = ((0.65, 0.22, 0.15), (0.15, 0.35, 0.55), (0.25, 0.45, 0.28), (0.75, 0.55, 0.15))


def clutter_along(builder: Builder, frontage: Frontage) -> None:
    """Benches, containers, bales or rocks, as the town's look has it."""
    kind, rng = builder.look.clutter, builder.rng
    if kind == "none" or frontage.length < 15:
        return
    s = builder.between((5, 25))
    while s < frontage.length - 3:
        place, along, out = frontage.at(s)
        yaw = math.atan2(along[1], along[0])
        if kind == "benches":
            inset = -0.45 if frontage.walk_m >= 2.4 else 0.9
            if _put(builder, place + out * inset, (0.8, 0.22, 0.22), yaw, (0.42, 0.28, 0.18), WALK, room=0.05):
                builder.things.box(
                    place + out * (inset + 0.2), 0.44, (0.8, 0.04, 0.2), yaw, (0.42, 0.28, 0.18), Label.STATIC
                )
        elif kind == "containers":
            colour, turn = rng.choice(_CONTAINERS), rng.choice((0, math.pi / 2))
            spot = place + out * builder.between((5, 9))
            if _put(builder, spot, (3.0, 1.22, 1.3), yaw + turn, colour, FREE) and rng.random() < 0.4:
                builder.things.box(spot, 2.6, (3.0, 1.22, 1.3), yaw + turn, rng.choice(_CONTAINERS), Label.STATIC)
        elif kind == "bales":
            spot = place + out * builder.between((5, 18))
            _put(builder, spot, (0.9, 0.7, 0.6), builder.between((0, 3)), (0.78, 0.68, 0.38), FREE)
        elif kind == "rocks":
            size = builder.between((0.3, 1.0))
            spot = place + out * builder.between((3, 14))
            _put(builder, spot, (size, size * 0.8, size * 0.6), builder.between((0, 3)), (0.50, 0.46, 0.42), FREE)
        s += builder.between((18, 45))


def _put(
    builder: Builder, spot: np.ndarray, half: tuple[float, float, float], yaw: float, rgb: RGB, most: int,
    room: float = 0.2,
) -> bool:  # fmt: skip
    if not builder.land.take(spot, half[:2], yaw, most, room):
        return False
    builder.things.box(spot, 0.0, half, yaw, shade(builder.rng, rgb), Label.STATIC)
    return True


def close_dead_ends(builder: Builder, strips: Sequence[Strip]) -> None:
    """A striped barrier 2.5 m behind each road that ends, and a building that closes the view behind it.

    Neither where another road passes so close behind.
    """
    for middle, out, half in dead_ends(strips):
        spot, yaw = middle + out * 2.5, math.atan2(out[1], out[0]) + math.pi / 2
        along = np.array([math.cos(yaw), math.sin(yaw)])
        if (builder.land.values(builder.land.rectangle(spot, (half, 0.2), yaw, 0.1)) >= KEEP_CLEAR).any():
            continue
        pieces = max(3, round(half))
        for k in range(pieces):
            place = spot + along * half * ((2 * k + 1) / pieces - 1)
            rgb = ((0.80, 0.14, 0.12), (0.92, 0.92, 0.90))[k % 2]
            builder.land.take(place, (half / pieces, 0.2), yaw, most=255)
            builder.things.box(place, 0.35, (half / pieces, 0.06, 0.3), yaw, rgb, Label.STATIC)
        width, depth = builder.look.width[1], builder.between(builder.look.depth)
        centre = middle + out * (builder.between((7, 11)) + depth / 2)
        if builder.land.take(centre, (width / 2, depth / 2), yaw, room=0.4):
            builder.building(centre, width, depth, yaw)


def dead_ends(strips: Sequence[Strip]) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """(middle, outward direction, half width) of the roads' ends that nothing leads on from."""
    ends: dict[tuple[int, bool], list[np.ndarray]] = {}
    direction: dict[tuple[int, bool], np.ndarray] = {}
    for strip in driving(strips):
        for at_end, station in ((False, 0), (True, -1)):
            if strip.junction < 0 and strip.dead_end[at_end]:
                key = strip.road, at_end
                ends.setdefault(key, []).extend([strip.inner[station], strip.outer[station]])
                step = strip.centre[-1] - strip.centre[-2] if at_end else strip.centre[0] - strip.centre[1]
                direction[key] = step / np.hypot(*step)
    found = []
    for key in sorted(ends):
        p = np.array(ends[key])
        spread = np.hypot(*(p[:, None] - p[None]).transpose(2, 0, 1))
        a, b = np.unravel_index(int(spread.argmax()), spread.shape)
        found.append(((p[a] + p[b]) / 2, direction[key], float(spread.max()) / 2 + 0.5))
    return found
