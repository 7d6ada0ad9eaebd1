"""What the embedded simulator's pictures cost: `python benchmarks/render.py [--towns Mini01 Mini10]`.

CPU milliseconds (process time, median) of a tick of eight RGB views, two red coupes in sight of each other, compared
with a floor measured in the same run: casting the same rays at an empty plain and writing the same bytes. Per pixel the
floor takes one division for the ground, one look-up in the town's ground and four bytes out; no renderer that casts one
ray per pixel can do less. Cars and cameras move on by 0.3 m per tick, as in a recording at 30 Hz, because the renderer
draws an unchanged scene only once. Also the time to build a town, once compiled, and its memory.
"""

from __future__ import annotations

import argparse
import math
import resource
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from infra.minicarla import towns
from infra.minicarla.render import Renderer, warm_up
from infra.minicarla.render.kernels import kernel
from infra.minicarla.scenery import Body, Camera, CameraKind, Label, Pose, Shape, Weather
from model.camera import MOUNTS

SIZES = ((96, 64), (192, 128), (720, 480))
RED, HALF_SIZE = (0.70, 0.05, 0.08), (2.09, 0.99, 0.69)
STEP_M = 0.3
VIEWS = 2 * len(MOUNTS)
WEATHERS = {
    "clear": Weather(),
    "wet": Weather(cloudiness=90, precipitation=30, precipitation_deposits=80, wetness=80, fog_density=5),
}


@partial(kernel, cache=False)  # numba's cache would name this script as the module
def cast_at_plain(ground, x0, y0, per_m, rgb, eye, yaw, tan_x, out):
    """Cast one ray per pixel at the plain and write the colour of the texel that it meets, or a grey for the sky."""
    height, width = out.shape[:2]
    rows, columns = ground.shape
    c, s, tan_y = math.cos(yaw), math.sin(yaw), tan_x * height / width
    for y in range(height):
        up = (1 - 2 * (y + 0.5) / height) * tan_y
        for x in range(width):
            side = (2 * (x + 0.5) / width - 1) * tan_x
            kind = 15
            if up < 0:
                t = -eye[2] / up
                i = int((eye[1] + (s + c * side) * t - y0) * per_m)
                j = int((eye[0] + (c - s * side) * t - x0) * per_m)
                kind = ground[i, j] if 0 <= i < rows and 0 <= j < columns else 0
            out[y, x, 0], out[y, x, 1], out[y, x, 2], out[y, x, 3] = rgb[kind, 2], rgb[kind, 1], rgb[kind, 0], 255


def offset_pose(car: Pose, mount: tuple) -> Pose:
    """Return the pose at an offset, `mount`, from a level car."""
    c, s = math.cos(math.radians(car[4])), math.sin(math.radians(car[4]))
    x, y, z, _, yaw, _ = mount
    return car[0] + c * x - s * y, car[1] + s * x + c * y, z, 0.0, car[4] + yaw, 0.0


class Scene:
    """Two red coupes that drive towards each other, and four cameras on each."""

    def __init__(self, pose: Pose) -> None:
        ahead = offset_pose(pose, (14.0, -3.5, 0.0, 0.0, 180.0, 0.0))
        self.starts = [pose, (*ahead[:2], 0.0, 0.0, ahead[4], 0.0)]

    def at(self, tick: int) -> tuple[list[Body], list[Pose]]:
        """Return the cars and the cameras' poses at a tick; no two ticks have the same."""
        drive = (STEP_M * tick, 0.0, 0.0, 0.0, 0.0, 0.0)
        cars = [(*offset_pose(start, drive)[:2], *start[2:]) for start in self.starts]
        bodies = [Body(Shape.COUPE, car, HALF_SIZE, RED, Label.CAR, number) for number, car in enumerate(cars, start=1)]
        return bodies, [offset_pose(car, mount) for car in cars for mount in MOUNTS.values()]


def median_ms(job: Callable[[int], object], times: int) -> float:
    """Return the median CPU milliseconds of `job(tick)`, threads included; the first run does not count."""
    job(0)
    times_ms = []
    for tick in range(1, times + 1):
        started = time.process_time()
        job(tick)
        times_ms.append(1e3 * (time.process_time() - started))
    return statistics.median(times_ms)


def measure(name: str, repeats: int) -> None:
    """Print one town's table."""
    started = time.process_time()
    town = towns.load_town(name)
    scenery = towns.build_scenery(town)
    renderer = Renderer(scenery, threads=2)
    built_s = time.process_time() - started
    world, scene = renderer.world, Scene(town.spawn_points[7])
    print(
        f"{name} ({town.style}): {len(scenery.box_half)} boxes, {len(scenery.tree_xy)} trees, built in {built_s:.1f} s"
    )
    rgb = world.ground_rgb.astype(np.uint8)
    for width, height in SIZES:
        out = np.empty((height, width, 4), np.uint8)

        def plain(tick: int, out: np.ndarray = out) -> None:
            for eye in scene.at(tick)[1]:
                cast_at_plain(world.ground, world.ground_x, world.ground_y, world.texels_per_m, rgb, np.array(eye[:3]),
                         math.radians(eye[4]), 1.0, out)  # fmt: skip

        def drawn(tick: int, weather: Weather, size: tuple[int, int] = (width, height)) -> None:
            bodies, eyes = scene.at(tick)
            renderer.render([Camera(CameraKind.RGB, eye, *size, 90.0) for eye in eyes], bodies, weather)

        floor = median_ms(plain, 3 * repeats)
        cells = [f"  {width:3d}x{height:3d}  floor {floor:6.1f} ms"]
        for weather, numbers in WEATHERS.items():
            cost = median_ms(partial(drawn, weather=numbers), repeats)
            nanoseconds = 1e6 * cost / (VIEWS * width * height)
            cells.append(f"{weather} {cost:6.1f} ms = {cost / floor:4.1f} x floor, {nanoseconds:4.0f} ns per pixel")
        print("; ".join(cells), flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--towns", nargs="+", default=["Mini01", "Mini10"], metavar="NAME")
    options.add_argument("--repeats", type=int, default=7)
    chosen = options.parse_args()
    started = time.perf_counter()
    warm_up()
    print(f"first picture after {time.perf_counter() - started:.1f} s (compiles unless numba's cache is warm)")
    for name in chosen.towns:
        measure(name, chosen.repeats)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
