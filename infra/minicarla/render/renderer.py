"""The renderer: cameras and bodies in, one BGRA picture per camera out, the same bits for any number of threads."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple

import numpy as np

from infra.minicarla.render.kernels import FAR_M
from infra.minicarla.render.light import Light, light_of
from infra.minicarla.render.rays import BODY_COLUMNS, prepare
from infra.minicarla.render.shading import draw, smooth_edges
from infra.minicarla.render.shadow import SIDE, Shade, bake
from infra.minicarla.render.world import RenderedWorld, build_world
from infra.minicarla.scenery import Body, Camera, CameraKind, Label, Pose, Scenery, Shape, Weather
from infra.minicarla.transforms import rotation

JOBS_A_VIEW = 4
SHADES_KEPT = 3
MARGIN_M = 20.0
DOWN = np.array([1.0, 1.0, -1.0])
"""The eye that a wet road shows is the camera's, mirrored in the ground."""
MATT_LABELS = (Label.WALLS, Label.STATIC)
DEPTH_CODES = 2**24 - 1


def axes_of(pose: Pose) -> np.ndarray:
    """Return [3, 3]; columns are forward, right and up of a CARLA pose, as `carla.Transform.get_matrix()`."""
    return np.array(rotation(*pose[3:]))


def body_rows(bodies: Sequence[Body]) -> np.ndarray:
    """Return [M, BODY_COLUMNS] as rays.py reads bodies."""
    rows = np.zeros((len(bodies), BODY_COLUMNS))
    shapes = list(Shape)
    for row, body in zip(rows, bodies, strict=True):
        axes = axes_of(body.pose)
        row[:3] = np.array(body.pose[:3]) + body.half[2] * axes[:, 2]
        row[3:12] = axes.reshape(-1)
        row[12:15] = body.half
        row[15] = shapes.index(body.shape)
        row[16:19] = 255 * np.array(body.rgb)
        row[19] = math.sqrt(sum(side * side for side in body.half))
        row[20], row[21] = body.actor_id, int(body.label)
        row[22] = 0.0 if body.label in MATT_LABELS else 1.0
    return rows


class Picture:
    """One view; cameras of one place, size and angle share it."""

    def __init__(self, camera: Camera) -> None:
        axes, shape = axes_of(camera.pose), (camera.height, camera.width)
        self.camera = camera
        self.eye = np.array(camera.pose[:3], np.float64)
        self.axes = np.ascontiguousarray(np.stack([axes[:, 1], axes[:, 2], axes[:, 0]]))
        self.tan_x = math.tan(math.radians(camera.fov_deg) / 2)
        self.coloured = False
        self.rgb, self.depth = np.empty((*shape, 3), np.float32), np.empty(shape, np.float32)
        self.tag, self.identity = np.empty(shape, np.uint8), np.empty(shape, np.uint32)
        self.surface, self.bgra = np.empty(shape, np.int64), np.empty((*shape, 4), np.uint8)

    def sort(self, world: RenderedWorld, rows: np.ndarray, wet: bool) -> None:
        """List what each tile may show, and what a wet ground in it may mirror."""
        size = self.camera.width, self.camera.height
        self.ahead = prepare(world.box, world.tree, rows, self.eye, self.axes, self.tan_x, *size)
        self.below = self.ahead
        if wet:
            self.below = prepare(world.box, world.tree, rows, self.eye * DOWN, self.axes * DOWN, self.tan_x, *size)

    def draw(self, world: RenderedWorld, light: Light, shade: Shade, rows: np.ndarray, part: int) -> None:
        """Cast the rays of every JOBS_A_VIEW-th row of tiles from `part` on."""
        view = self.ahead, self.below, self.eye, self.axes, self.tan_x, part, JOBS_A_VIEW
        draw(world, light, shade, rows, *view, self.rgb, self.depth, self.tag, self.identity, self.surface)

    def smooth(self, world: RenderedWorld, light: Light, shade: Shade, rows: np.ndarray, part: int) -> None:
        """Finish the colours of those rows; all rows must have been drawn."""
        view = self.ahead, self.below, self.eye, self.axes, self.tan_x, part, JOBS_A_VIEW
        smooth_edges(world, light, shade, rows, *view, self.rgb, self.surface, self.bgra)


class Renderer:
    """Draws one town. Not thread-safe; uses `threads` threads of its own."""

    def __init__(self, scenery: Scenery, threads: int = 2) -> None:
        self.world = build_world(scenery)
        self.pool = ThreadPoolExecutor(max(threads, 1))
        rows, columns = scenery.ground.shape
        self.extent_m = max(rows, columns) * scenery.texel_m + 2 * MARGIN_M
        self.shades: OrderedDict[tuple, Shade] = OrderedDict()
        self.drawn: tuple[tuple | None, list[Picture]] = (None, [])
        """The last request and its pictures."""

    def render(self, cameras: Sequence[Camera], bodies: Sequence[Body], weather: Weather) -> list[np.ndarray]:
        """Return one [h, w, 4] uint8 BGRA array per camera, new ones each time.

        ValueError for a camera, a body or a weather with numbers that cannot be drawn.
        """
        check_drawable(cameras, bodies, weather)
        request = tuple(cameras), tuple(bodies), weather
        if self.drawn[0] != request:  # a recorder waits some ticks in one place before it starts
            self.drawn = request, self.draw(*request)
        return [encode_image(camera.kind, picture) for camera, picture in zip(cameras, self.drawn[1], strict=True)]

    def draw(self, cameras: Sequence[Camera], bodies: Sequence[Body], weather: Weather) -> list[Picture]:
        """Return what each camera shows; cameras of one place, size and angle get the same picture."""
        light, rows = light_of(weather), body_rows(bodies)
        scene = self.world, light, self.shade_for(light), rows
        pictures: dict[tuple, Picture] = {}
        shown = []
        for camera in cameras:
            key = (camera.pose, camera.width, camera.height, camera.fov_deg)
            picture = pictures.setdefault(key, Picture(camera))
            picture.coloured |= camera.kind is CameraKind.RGB
            shown.append(picture)
        drawn = list(pictures.values())
        parts = [(picture, part) for part in range(JOBS_A_VIEW) for picture in drawn]
        list(self.pool.map(lambda picture: picture.sort(self.world, rows, light.wet > 0), drawn))
        list(self.pool.map(lambda job: job[0].draw(*scene, job[1]), parts))
        list(self.pool.map(lambda job: job[0].smooth(*scene, job[1]), [job for job in parts if job[0].coloured]))
        return shown

    def shade_for(self, light: Light) -> Shade:
        """Return the shadow map of a position of the sun; the last few are kept."""
        key = (light.sun_x, light.sun_y, light.sun_z)
        if key not in self.shades:
            self.shades[key] = self.bake_shade(light, key)
            while len(self.shades) > SHADES_KEPT:
                self.shades.popitem(last=False)
        self.shades.move_to_end(key)
        return self.shades[key]

    def bake_shade(self, light: Light, sun: tuple[float, float, float]) -> Shade:
        heights = np.empty((SIDE, SIDE, 3), np.float32)
        x0, y0, per_m = self.world.ground_x - MARGIN_M, self.world.ground_y - MARGIN_M, SIDE / self.extent_m
        scene = self.world.box, self.world.crown.reshape(-1, 8), *sun, x0, y0, per_m, heights
        band = SIDE // 16
        list(self.pool.map(lambda top: bake(*scene, top, top + band), range(0, SIDE, band)))
        slope = light.sun_z / math.hypot(light.sun_x, light.sun_y)
        return Shade(heights, x0, y0, per_m, per_m / slope)


def check_drawable(cameras: Sequence[Camera], bodies: Sequence[Body], weather: Weather) -> None:
    """Raise ValueError for sizes, angles or numbers out of range."""
    for camera in cameras:
        if min(camera.width, camera.height) < 1 or not 0 < camera.fov_deg < 180:
            raise ValueError(f"cannot draw {camera}: give at least 1x1 pixels and an angle between 0 and 180 degrees")
        if not all(map(math.isfinite, camera.pose)):
            raise ValueError(f"cannot draw {camera}: its pose must be finite")
    for body in bodies:
        if not all(map(math.isfinite, body.pose)) or not min(body.half) > 0:
            raise ValueError(f"cannot draw {body}: its pose must be finite and its half sizes above zero")
    if not all(map(math.isfinite, astuple(weather))):
        raise ValueError(f"cannot light a town by {weather}: every number must be finite")


def encode_image(kind: CameraKind, drawn: Picture) -> np.ndarray:
    """Return the BGRA picture of a camera's kind, coded as CARLA does."""
    if kind is CameraKind.RGB:
        return drawn.bgra.copy()
    picture = np.zeros((*drawn.tag.shape, 4), np.uint8)
    picture[..., 3] = 255
    if kind is CameraKind.DEPTH:
        code = np.rint(np.minimum(drawn.depth.astype(np.float64), FAR_M) * (DEPTH_CODES / FAR_M)).astype(np.uint32)
        picture[..., 2], picture[..., 1], picture[..., 0] = code & 255, code >> 8 & 255, code >> 16
    else:
        picture[..., 2] = drawn.tag
        if kind is CameraKind.INSTANCE:
            picture[..., 1], picture[..., 0] = drawn.identity & 255, drawn.identity >> 8 & 255
    return picture
