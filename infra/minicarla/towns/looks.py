"""How each style of town looks: palettes, sizes, distances. Colours are 0..1 RGB, lengths metres."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..scenery import Ground

RGB = tuple[float, float, float]


def _hex(*codes: str) -> tuple[RGB, ...]:
    return tuple((int(c[0:2], 16) / 255, int(c[2:4], 16) / 255, int(c[4:6], 16) / 255) for c in codes)


@dataclass(frozen=True)
class Look:
    """Numbers that the placement draws from; pairs are (least, most)."""

    walls: tuple[RGB, ...]
    roofs: tuple[RGB, ...]
    facades: tuple[int, ...]
    """The renderer's facade patterns; 0 is plain."""
    floors: tuple[int, int]
    floor_m: float = 3.0
    width: tuple[float, float] = (10.0, 16.0)
    depth: tuple[float, float] = (9.0, 13.0)
    setback: tuple[float, float] = (1.0, 2.5)
    """From the outer edge of the street (behind the sidewalk) to the front."""
    gap: tuple[float, float] = (0.0, 4.0)
    share: float = 0.95
    """Of the frontage that is built on."""
    rows: int = 1
    """Rows of buildings behind one another."""
    roof: str = "flat"
    """flat, ridge (a smaller storey under a ridge), tower (setbacks and plant on top) or tank."""
    base: Ground = Ground.GRASS
    lot: Ground = Ground.GRASS
    """Ground between the street and the building."""
    shoulder: Ground = Ground.GRAVEL
    fields: float = 0.0
    """Share of the open land that is ploughed or mown fields."""
    field_kinds: tuple[Ground, ...] = (Ground.FIELD,)
    street_tree_m: float = 14.0
    """Distance between street trees; 0 = none."""
    garden_trees: float = 0.3
    """Trees per 100 square metres of open land near the streets."""
    leaves: tuple[RGB, ...] = _hex("4a7a34", "557f3a", "3f6e31")
    tree_m: tuple[float, float] = (5.0, 8.0)
    """Height of the trees."""
    tree_slim: float = 0.36
    """Canopy's half width as a share of the tree's height."""
    fence: str = "none"
    """none, hedge, wall, picket or rail, along the fronts."""
    lamp_m: float = 28.0
    lamp_rgb: RGB = (0.30, 0.31, 0.33)
    zebra: bool = True
    clutter: str = "none"
    """Things that stand about: none, benches, containers, bales, rocks."""
    wood: float = 0.0
    """Trees per 100 square metres of the land between the gardens and the far land."""
    far_trees: float = 0.4
    """The same on the far land, round the town."""
    far_blocks: float = 0.0
    """Plain large buildings tried per hectare of the far land."""
    lights: bool = False
    """Traffic lights at junctions."""


_BRICK = _hex("9c5b48", "8a4d3c", "b07a5c", "a8674e", "c2a184", "7d5547")
_PASTEL = _hex("d9c9a8", "c8d2c4", "d8b9a0", "bcc8d6", "e2dccb", "cfae9f")
_CONCRETE = _hex("a9abad", "8d949b", "c0bfba", "767f88", "b4a898", "9aa7b0")
_GLASS = _hex("6f8797", "4f6b7d", "8aa3ad", "5b6770", "93a2a0", "3f5566")
_WOOD = _hex("8d3b2f", "7a4a33", "a8432f", "6f5b48", "b9b0a0")
_ADOBE = _hex("d3a574", "c98f5e", "deb98c", "b97d53", "e4cda6")
_TILES = _hex("8e4a3a", "7a3f35", "a25a43", "6b4238")
_SLATE = _hex("50555c", "5e636a", "474a50", "6a6660")
_TAR = _hex("6b6863", "77736c", "5a5855")

LOOKS: dict[str, Look] = {
    "grid": Look(
        _BRICK,
        _TAR,
        (1, 3, 5),
        (3, 5),
        roof="flat",
        lot=Ground.SIDEWALK,
        rows=2,
        garden_trees=0.12,
        far_blocks=14.0,
        far_trees=0.1,
        lights=True,
    ),
    "rural": Look(
        _WOOD,
        _SLATE,
        (0,),
        (2, 2),
        width=(12, 20),
        depth=(9, 13),
        setback=(9, 20),
        gap=(25, 70),
        share=0.6,
        roof="ridge",
        lot=Ground.GRAVEL,
        fields=0.6,
        street_tree_m=0,
        garden_trees=0.12,
        leaves=_hex("5d8a3a", "6b9440", "4c7a33"),
        fence="rail",
        lamp_m=0,
        zebra=False,
        clutter="bales",
        wood=0.25,
        far_trees=0.5,
    ),
    "suburb": Look(
        _PASTEL,
        _TILES,
        (2, 4),
        (1, 2),
        width=(9, 13),
        depth=(8, 11),
        setback=(5, 8),
        gap=(5, 9),
        roof="ridge",
        street_tree_m=22,
        garden_trees=0.7,
        leaves=_hex("4f8a3c", "5f9a45", "3f7a35", "c98aa0"),
        tree_m=(4, 7),
        fence="hedge",
        rows=2,
        far_trees=0.6,
        wood=0.3,
    ),
    "ring": Look(
        _hex("cfd3d6", "b8c0c8", "d6cfc2", "a9b7c2"),
        _SLATE,
        (2, 6),
        (4, 7),
        width=(16, 26),
        depth=(10, 13),
        setback=(6, 12),
        gap=(8, 16),
        street_tree_m=11,
        garden_trees=0.45,
        leaves=_hex("3c6b33", "34602f", "457338"),
        tree_slim=0.24,
        tree_m=(7, 11),
        rows=2,
        clutter="benches",
        far_blocks=8.0,
        far_trees=0.3,
        lights=True,
    ),
    "downtown": Look(
        _GLASS + _CONCRETE[:2],
        _TAR,
        (3, 5, 7, 8),
        (9, 24),
        floor_m=3.4,
        width=(18, 28),
        depth=(16, 24),
        setback=(0.8, 3.0),
        gap=(0, 5),
        roof="tower",
        base=Ground.PLAZA,
        lot=Ground.PLAZA,
        street_tree_m=18,
        garden_trees=0.05,
        tree_m=(4.5, 6),
        lamp_m=22,
        rows=2,
        clutter="benches",
        far_blocks=20.0,
        far_trees=0.05,
        lights=True,
    ),
    "dual": Look(
        _CONCRETE,
        _TAR,
        (1, 6, 8),
        (5, 9),
        width=(18, 30),
        depth=(11, 14),
        setback=(10, 16),
        gap=(10, 22),
        street_tree_m=16,
        garden_trees=0.35,
        leaves=_hex("587a2e", "6a8a35", "4d6e2c"),
        lamp_m=24,
        shoulder=Ground.ROAD,
        rows=2,
        far_blocks=7.0,
        far_trees=0.3,
        lights=True,
    ),
    "village": Look(
        _hex("e6dcc4", "d8c39a", "efe6d2", "c9b28a", "d9a98a"),
        _TILES,
        (2, 4),
        (2, 3),
        width=(8, 12),
        depth=(8, 10),
        setback=(0.8, 3.5),
        gap=(1, 7),
        share=0.85,
        roof="ridge",
        fields=0.4,
        street_tree_m=0,
        garden_trees=0.5,
        tree_m=(4, 8),
        fence="wall",
        lamp_m=30,
        wood=0.12,
        far_trees=0.5,
    ),
    "boulevard": Look(
        _hex("d9cdb6", "cfc2a8", "e3dac8", "c8b79a"),
        _hex("5a6a70", "4f5e66", "66747a"),
        (1, 4, 7),
        (5, 6),
        floor_m=3.3,
        width=(14, 22),
        depth=(12, 15),
        setback=(1.0, 1.5),
        gap=(0, 2),
        roof="ridge",
        base=Ground.GRASS,
        lot=Ground.PLAZA,
        street_tree_m=9,
        garden_trees=0.2,
        leaves=_hex("3f7d2e", "4a8a35", "367028"),
        tree_m=(7, 9),
        lamp_m=20,
        lamp_rgb=(0.12, 0.16, 0.14),
        clutter="benches",
        far_blocks=8.0,
        far_trees=0.5,
        wood=0.3,
        lights=True,
    ),
    "adobe": Look(
        _ADOBE,
        _ADOBE,
        (2, 0, 4),
        (1, 3),
        width=(9, 15),
        depth=(9, 14),
        setback=(1.5, 5),
        gap=(1, 6),
        share=0.9,
        roof="tank",
        base=Ground.GRAVEL,
        lot=Ground.GRAVEL,
        fields=0.2,
        street_tree_m=26,
        garden_trees=0.12,
        leaves=_hex("7f8a45", "8d9350", "6d7c3e"),
        tree_m=(4, 6.5),
        tree_slim=0.42,
        fence="wall",
        rows=2,
        clutter="rocks",
        far_blocks=5.0,
        far_trees=0.12,
    ),
    "highland": Look(
        _hex("8f8a80", "7d786f", "a39c8f", "6c675f"),
        _SLATE,
        (0, 2),
        (1, 2),
        width=(9, 14),
        depth=(8, 11),
        setback=(7, 18),
        gap=(30, 80),
        share=0.7,
        roof="ridge",
        fields=0.25,
        field_kinds=(Ground.GRAVEL, Ground.FIELD),
        street_tree_m=0,
        garden_trees=0.15,
        leaves=_hex("b5762c", "c79a35", "9c4f28", "2f5230", "34592f"),
        tree_m=(6, 13),
        tree_slim=0.22,
        fence="wall",
        lamp_m=0,
        zebra=False,
        clutter="rocks",
        wood=0.9,
        far_trees=1.1,
    ),
    "works": Look(
        _hex("9fb0b8", "b9bdb8", "7f93a3", "c9c2a8", "5f7f93"),
        _hex("8f979b", "7c8488", "a6abab"),
        (0, 6),
        (2, 3),
        floor_m=4.0,
        width=(26, 46),
        depth=(18, 30),
        setback=(8, 16),
        gap=(8, 22),
        base=Ground.GRASS,
        lot=Ground.GRAVEL,
        fields=0.1,
        field_kinds=(Ground.GRAVEL,),
        street_tree_m=40,
        garden_trees=0.06,
        leaves=_hex("66753a", "5a6c37"),
        lamp_m=34,
        fence="rail",
        clutter="containers",
        far_blocks=6.0,
        far_trees=0.2,
    ),
    "bay": Look(
        _hex("f0ede4", "e8f0f2", "f4d9b8", "bcd8e0", "f2c4b0", "d5e4cf"),
        _hex("c25b3f", "b9674a", "3f6f8a"),
        (2, 4, 7),
        (3, 6),
        width=(10, 15),
        depth=(10, 13),
        setback=(1.2, 4),
        gap=(0, 6),
        roof="flat",
        lot=Ground.PLAZA,
        street_tree_m=10,
        garden_trees=0.2,
        leaves=_hex("6fae4f", "7fb958", "5d9c48"),
        tree_m=(6, 9),
        tree_slim=0.2,
        lamp_m=24,
        lamp_rgb=(0.75, 0.76, 0.78),
        clutter="benches",
        fence="picket",
        far_blocks=3.0,
        far_trees=0.35,
        wood=0.2,
    ),
}


def look_of(style: str) -> Look:
    """The look of a style; a style that isn't listed looks like the grid town."""
    return LOOKS.get(style, replace(LOOKS["grid"]))
