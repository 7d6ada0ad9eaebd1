"""Records that towns, renderer and world share, in CARLA's axes (x forward, y right, z up), metres and degrees."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np

Pose = tuple[float, float, float, float, float, float]
"""x, y, z in metres; pitch, yaw, roll in degrees, as `carla.Transform` has them."""


class Label(enum.IntEnum):
    """CARLA 0.9.16's semantic tags (CityObjectLabel), as far as the towns use them."""

    NONE = 0
    ROADS = 1
    SIDEWALKS = 2
    BUILDINGS = 3
    WALLS = 4
    FENCES = 5
    POLES = 6
    TRAFFIC_LIGHT = 7
    VEGETATION = 9
    TERRAIN = 10
    SKY = 11
    CAR = 14
    TRUCK = 15
    STATIC = 20
    OTHER = 22
    ROAD_LINES = 24


class Ground(enum.IntEnum):
    """Surface of one ground texel."""

    GRASS = 0
    ROAD = 1
    SIDEWALK = 2
    KERB = 3
    LINE_WHITE = 4
    LINE_YELLOW = 5
    FIELD = 6
    GRAVEL = 7
    PLAZA = 8


@dataclass(frozen=True)
class Town:
    """A road network with its spawn points; cheap to make, without scenery."""

    name: str
    opendrive: str
    spawn_points: tuple[Pose, ...]
    style: str
    """Look of the town, chosen by its generator: grid, rural, suburb, ring, downtown, dual, ..."""
    seed: int


@dataclass(frozen=True)
class Scenery:
    """Everything in a town that does not move. All arrays are float32 unless said otherwise.

    Ground: `ground[iy, ix]` (uint8, `Ground`) covers x in [x0, x0 + W * texel_m), y in [y0, y0 + H * texel_m); beyond
    it lies GRASS. Everything is flat: the ground is z = 0.
    """

    ground: np.ndarray
    """[H, W] uint8."""
    origin_xy: tuple[float, float]
    texel_m: float
    box_center: np.ndarray
    """[N, 3]"""
    box_half: np.ndarray
    """[N, 3] half sizes"""
    box_yaw_deg: np.ndarray
    """[N]"""
    box_rgb: np.ndarray
    """[N, 3] 0..1, base colour"""
    box_facade: np.ndarray
    """[N] int32: facade texture on the sides (0 = plain colour, 1.. = window patterns of the renderer)"""
    box_roof_rgb: np.ndarray
    """[N, 3]"""
    box_label: np.ndarray
    """[N] uint8, `Label`"""
    tree_xy: np.ndarray
    """[T, 2] foot of the trunk"""
    tree_trunk: np.ndarray
    """[T, 2] trunk height up to the canopy's centre, trunk radius"""
    tree_canopy: np.ndarray
    """[T, 2] canopy's horizontal and vertical half axes (an ellipsoid)"""
    tree_rgb: np.ndarray
    """[T, 3]"""


class Shape(enum.StrEnum):
    """The renderer's meshes for actors."""

    COUPE = "coupe"
    VAN = "van"
    TRUCK = "truck"
    BOX = "box"


@dataclass(frozen=True)
class Body:
    """A thing that can move: pose of the actor's origin (on the ground, under the middle), and how it looks."""

    shape: Shape
    pose: Pose
    half: tuple[float, float, float]
    """Half sizes; the mesh fills this box, whose centre lies `half[2]` above the origin."""
    rgb: tuple[float, float, float]
    """0..1"""
    label: Label
    actor_id: int


class CameraKind(enum.StrEnum):
    RGB = "rgb"
    DEPTH = "depth"
    SEMANTIC = "semantic"
    INSTANCE = "instance"


@dataclass(frozen=True)
class Camera:
    kind: CameraKind
    pose: Pose
    width: int
    height: int
    fov_deg: float
    """Horizontal field of view."""


@dataclass(frozen=True)
class Weather:
    """CARLA's weather numbers (percent, degrees); the default is a lit noon."""

    cloudiness: float = 10.0
    precipitation: float = 0.0
    precipitation_deposits: float = 0.0
    wind_intensity: float = 5.0
    sun_azimuth_angle: float = 45.0
    sun_altitude_angle: float = 60.0
    fog_density: float = 0.0
    fog_distance: float = 0.75
    fog_falloff: float = 0.1
    wetness: float = 0.0
    scattering_intensity: float = 1.0
    mie_scattering_scale: float = 0.03
    rayleigh_scattering_scale: float = 0.0331
    dust_storm: float = 0.0
