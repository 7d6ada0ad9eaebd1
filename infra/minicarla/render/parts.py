"""What a car's surface is made of, and where: drawings of its sides that rays look up."""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from infra.minicarla.scenery import Shape


class Part(IntEnum):
    """What a piece of surface is made of."""

    PAINT = 0
    GLASS = 1
    TYRE = 2
    RIM = 3
    HEADLIGHT = 4
    TAIL_LIGHT = 5
    TRIM = 6
    PLATE = 7
    GAP = 8


PART_RGB = np.array([
    (1.0, 1.0, 1.0), (0.07, 0.09, 0.11), (0.06, 0.06, 0.06), (0.50, 0.51, 0.53), (0.92, 0.93, 0.90), (0.34, 0.02, 0.02),
    (0.09, 0.09, 0.10), (0.80, 0.80, 0.74), (0.16, 0.10, 0.10),
])  # fmt: skip
"""sRGB 0..1; PAINT takes the actor's colour."""
PART_GLOSS = np.array([0.55, 0.9, 0.0, 0.35, 0.7, 0.6, 0.15, 0.1, 0.0])

PART_GLOW = np.zeros((len(Part), 3))
"""Linear light of the lamps at dusk, in fog and in rain."""
PART_GLOW[Part.HEADLIGHT], PART_GLOW[Part.TAIL_LIGHT] = (1.1, 1.0, 0.8), (0.75, 0.03, 0.02)


class Side(IntEnum):
    """A drawing's place on the car. Flank: x to the right, z up. Ends: y to the right, z up. Top: x right, y up."""

    FLANK = 0
    TOP = 1
    FRONT = 2
    REAR = 3


COLUMNS, ROWS = 512, 256
Point = tuple[float, float]


class Drawing:
    """One side of a car; both axes run from -1 to 1, or z from 0 (road) to 1 (top)."""

    def __init__(self, z_up: bool) -> None:
        self.image = Image.new("L", (COLUMNS, ROWS), int(Part.PAINT))
        self.draw = ImageDraw.Draw(self.image)
        self.z_up = z_up

    def at(self, point: Point) -> Point:
        u, v = point
        return (u + 1) / 2 * COLUMNS - 0.5, (v if self.z_up else (v + 1) / 2) * ROWS - 0.5

    def polygon(self, part: Part, *points: Point) -> None:
        self.draw.polygon([self.at(point) for point in points], fill=int(part))

    def mirrored(self, part: Part, *points: Point) -> None:
        """A polygon on the right, and again on the left."""
        self.polygon(part, *points)
        self.polygon(part, *((-u, v) for u, v in points))

    def line(self, part: Part, *points: Point, width: int = 2) -> None:
        self.draw.line([self.at(point) for point in points], fill=int(part), width=width, joint="curve")

    def disc(self, part: Part, centre: Point, radius: Point) -> None:
        (u, v), (a, b) = centre, radius
        self.draw.ellipse([*self.at((u - a, v - b)), *self.at((u + a, v + b))], fill=int(part))

    def texels(self) -> np.ndarray:
        return np.array(self.image)


def blank() -> list[Drawing]:
    return [Drawing(side is not Side.TOP) for side in Side]


def coupe() -> list[Drawing]:
    """Rounded glass, a short tail, round arches: the Audi TT's marks."""
    flank, top, front, rear = sides = blank()
    flank.polygon(Part.GLASS, (0.375, 0.672), (0.28, 0.74), (0.14, 0.84), (0.02, 0.893), (-0.10, 0.915), (-0.25, 0.908),
                  (-0.40, 0.865), (-0.53, 0.78), (-0.565, 0.715), (-0.50, 0.695), (0.0, 0.685))  # fmt: skip
    flank.line(Part.TRIM, (-0.285, 0.68), (-0.335, 0.93), width=6)
    flank.line(Part.GAP, (-0.255, 0.69), (-0.275, 0.45), (-0.235, 0.22), width=2)
    flank.line(Part.GAP, (0.37, 0.66), (0.375, 0.42), (0.34, 0.22), width=2)
    flank.line(Part.GAP, (-0.255, 0.20), (0.35, 0.20), width=2)
    flank.polygon(Part.TRIM, (-0.44, 0.165), (0.46, 0.165), (0.46, 0.0), (-0.44, 0.0))
    flank.line(Part.TRIM, (-0.20, 0.575), (-0.12, 0.575), width=4)
    for x in (-0.60, 0.60):
        flank.disc(Part.TRIM, (x, 0.235), (0.178, 0.285))
    flank.polygon(Part.HEADLIGHT, (0.985, 0.40), (0.87, 0.49), (0.79, 0.52), (0.85, 0.44))
    flank.polygon(Part.TAIL_LIGHT, (-1.0, 0.44), (-0.87, 0.49), (-0.85, 0.57), (-1.0, 0.55))
    top.polygon(
        Part.GLASS,
        (0.50, 0.40),
        (0.46, 0.72),
        (0.20, 0.60),
        (0.24, 0.0),
        (0.20, -0.60),
        (0.46, -0.72),
        (0.50, -0.40),
        (0.52, 0.0),
    )
    top.polygon(Part.GLASS, (-0.42, 0.50), (-0.40, 0.0), (-0.42, -0.50), (-0.76, -0.56), (-0.79, 0.0), (-0.76, 0.56))
    for side in (-1, 1):
        top.line(Part.GAP, (0.53, side * 0.62), (0.86, side * 0.52))
    top.line(Part.GAP, (-0.82, -0.66), (-0.82, 0.66))
    front.mirrored(Part.HEADLIGHT, (0.40, 0.385), (0.78, 0.48), (0.90, 0.47), (0.80, 0.39), (0.50, 0.35))
    front.polygon(Part.TRIM, (-0.36, 0.40), (0.36, 0.40), (0.28, 0.19), (-0.28, 0.19))
    front.mirrored(Part.TRIM, (0.46, 0.27), (0.84, 0.30), (0.84, 0.19), (0.44, 0.17))
    front.polygon(Part.PLATE, (-0.26, 0.23), (0.26, 0.23), (0.26, 0.30), (-0.26, 0.30))
    rear.mirrored(Part.TAIL_LIGHT, (0.40, 0.455), (0.86, 0.445), (0.94, 0.545), (0.54, 0.535))
    rear.polygon(Part.PLATE, (-0.27, 0.32), (0.27, 0.32), (0.27, 0.405), (-0.27, 0.405))
    rear.polygon(Part.TRIM, (-0.62, 0.14), (0.62, 0.14), (0.56, 0.24), (-0.56, 0.24))
    rear.line(Part.GAP, (-0.40, 0.53), (-0.34, 0.29), (0.34, 0.29), (0.40, 0.53))
    for side in (-1, 1):
        rear.disc(Part.RIM, (side * 0.44, 0.19), (0.05, 0.035))
    return sides


def van() -> list[Drawing]:
    flank, top, front, rear = sides = blank()
    flank.polygon(Part.GLASS, (0.70, 0.57), (0.545, 0.86), (0.30, 0.86), (0.30, 0.57))
    flank.line(Part.GAP, (0.28, 0.90), (0.28, 0.16), width=2)
    flank.line(Part.GAP, (0.66, 0.50), (0.64, 0.16), width=2)
    flank.line(Part.GAP, (-0.22, 0.92), (-0.22, 0.16), width=2)
    flank.polygon(Part.TRIM, (-1.0, 0.33), (0.28, 0.33), (0.28, 0.30), (-1.0, 0.30))
    for x in (-0.62, 0.66):
        flank.disc(Part.TRIM, (x, 0.135), (0.125, 0.155))
    flank.polygon(Part.HEADLIGHT, (0.99, 0.36), (0.88, 0.46), (0.86, 0.42), (0.93, 0.35))
    top.polygon(Part.GLASS, (0.80, 0.76), (0.575, 0.80), (0.575, -0.80), (0.80, -0.76))
    front.polygon(Part.GLASS, (-0.78, 0.58), (0.78, 0.58), (0.74, 0.90), (-0.74, 0.90))
    front.mirrored(Part.HEADLIGHT, (0.48, 0.34), (0.84, 0.38), (0.80, 0.46), (0.54, 0.42))
    front.polygon(Part.TRIM, (-0.44, 0.42), (0.44, 0.42), (0.40, 0.24), (-0.40, 0.24))
    front.polygon(Part.TRIM, (-0.9, 0.17), (0.9, 0.17), (0.9, 0.0), (-0.9, 0.0))
    front.polygon(Part.PLATE, (-0.26, 0.19), (0.26, 0.19), (0.26, 0.235), (-0.26, 0.235))
    rear.mirrored(Part.GLASS, (0.06, 0.60), (0.74, 0.60), (0.72, 0.86), (0.06, 0.86))
    rear.line(Part.GAP, (0.0, 0.92), (0.0, 0.18), width=4)
    rear.mirrored(Part.TAIL_LIGHT, (0.84, 0.30), (0.95, 0.30), (0.93, 0.54), (0.84, 0.54))
    rear.polygon(Part.TRIM, (-0.95, 0.19), (0.95, 0.19), (0.95, 0.0), (-0.95, 0.0))
    rear.polygon(Part.PLATE, (-0.28, 0.27), (0.02, 0.27), (0.02, 0.33), (-0.28, 0.33))
    return sides


def truck() -> list[Drawing]:
    flank, _, front, rear = sides = blank()
    flank.polygon(Part.GLASS, (0.93, 0.54), (0.89, 0.78), (0.68, 0.78), (0.68, 0.54))
    flank.line(Part.GAP, (0.66, 0.80), (0.66, 0.20))
    for x in (-0.80, -0.62, -0.44, -0.26, -0.08, 0.10, 0.28):
        flank.line(Part.GAP, (x, 0.98), (x, 0.28))
    flank.polygon(Part.PLATE, (-1.0, 0.50), (0.46, 0.50), (0.46, 0.56), (-1.0, 0.56))
    flank.disc(Part.TRIM, (0.72, 0.135), (0.13, 0.16))
    front.polygon(Part.GLASS, (-0.86, 0.52), (0.86, 0.52), (0.82, 0.79), (-0.82, 0.79))
    front.polygon(Part.TRIM, (-0.56, 0.46), (0.56, 0.46), (0.52, 0.30), (-0.52, 0.30))
    front.mirrored(Part.HEADLIGHT, (0.58, 0.24), (0.86, 0.24), (0.86, 0.32), (0.60, 0.32))
    front.polygon(Part.TRIM, (-1.0, 0.20), (1.0, 0.20), (1.0, 0.0), (-1.0, 0.0))
    rear.line(Part.GAP, (0.0, 0.98), (0.0, 0.28), width=4)
    rear.mirrored(Part.PLATE, (0.70, 0.30), (0.94, 0.30), (0.94, 0.34), (0.70, 0.34))
    return sides


DRAWERS = {Shape.COUPE: coupe, Shape.VAN: van, Shape.TRUCK: truck, Shape.BOX: blank}


@lru_cache
def liveries() -> np.ndarray:
    """Return [shapes, sides, ROWS, COLUMNS] uint8 `Part` of every `Shape`, in the enums' order; rows run upwards."""
    return np.stack([np.stack([drawing.texels() for drawing in DRAWERS[shape]()]) for shape in Shape])
