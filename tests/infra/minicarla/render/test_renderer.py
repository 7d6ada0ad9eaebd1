"""The same bits every time, memory, towns, and what the renderer refuses."""

from __future__ import annotations

import dataclasses
import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from infra.minicarla import towns
from infra.minicarla.render import Renderer
from infra.minicarla.scenery import CameraKind, Label, Town, Weather
from model.camera import MOUNTS

from .conftest import brightness, camera, coupe, scenery

ROOT = Path(__file__).resolve().parents[4]
FRESH_PROCESS = """
from tests.infra.minicarla.render.test_renderer import digest
from tests.infra.minicarla.render.conftest import scenery
from infra.minicarla.render import Renderer
print(digest(Renderer(scenery(), threads=3)))
"""
PEAK_MEMORY = """
import resource, sys
from infra.minicarla import towns
from infra.minicarla.render import Renderer
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
town = towns.load_town(sys.argv[1])
before = peak()
scenery = towns.build_scenery(town)
print(peak() - before)
Renderer(scenery, threads=1)
print(peak() - before)
"""


def digest(renderer: Renderer) -> str:
    """Hash of pictures of all kinds in dry and wet weather."""
    poses = [(0, 0, 1.75, 0, 0, 0), (3, -4, 2.0, -10, 40, 3)]
    views = [camera(pose, kind, 100, 70) for pose in poses for kind in CameraKind]
    bodies = [coupe((9, 0, 0, 0, 20, 0), 1), coupe((14, -4, 0, 0, 180, 0), 2)]
    total = hashlib.sha256()
    for weather in (Weather(), Weather(wetness=80, cloudiness=70, fog_density=10)):
        for picture in renderer.render(views, bodies, weather):
            total.update(picture.tobytes())
    return total.hexdigest()


@pytest.fixture(scope="module")
def bits(square: Renderer) -> str:
    return digest(square)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_the_bits_do_not_depend_on_threads_or_runs(bits, threads):
    renderer = Renderer(scenery(), threads)
    assert digest(renderer) == digest(renderer) == bits


def test_another_process_draws_the_same_bits(bits):
    done = subprocess.run([sys.executable, "-c", FRESH_PROCESS], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [bits]


def test_pictures_are_fresh_arrays(square):
    views = [camera((0, 0, 2, 0, 0, 0))] * 2
    first, second = square.render(views, [], Weather())
    kept = first.copy()
    assert first is not second
    assert not np.shares_memory(first, second)
    square.render([camera((0, 0, 2, 0, 90, 0))], [], Weather())
    assert np.array_equal(first, kept)


def test_a_scene_that_did_not_change_is_not_drawn_again(square, monkeypatch):
    views, body = [camera((0, 0, 2, 0, 0, 0), kind) for kind in CameraKind], coupe((9, 0, 0, 0, 20, 0), 1)
    first = square.render(views, [body], Weather())
    drawn = []
    monkeypatch.setattr(square, "draw", lambda *asked: drawn.append(asked) or Renderer.draw(square, *asked))
    again = square.render(views, [body], Weather())
    assert not drawn
    assert all(np.array_equal(one, other) and one is not other for one, other in zip(first, again, strict=True))
    moved = dataclasses.replace(body, pose=(9, 1, 0, 0, 20, 0))
    assert not np.array_equal(square.render(views, [moved], Weather())[0], first[0])
    assert not np.array_equal(square.render(views, [moved], Weather(wetness=80))[0], first[0])
    assert len(square.render(views[1:], [moved], Weather(wetness=80))) == len(views) - 1
    assert len(drawn) == 3


def test_cameras_of_all_kinds_at_one_place_agree(square):
    views = [camera((0, 0, 2, 0, 0, 0), kind) for kind in CameraKind]
    together = square.render(views, [coupe((8, 0, 0, 0, 0, 0))], Weather())
    alone = [square.render([view], [coupe((8, 0, 0, 0, 0, 0))], Weather())[0] for view in views]
    assert all(np.array_equal(a, b) for a, b in zip(together, alone, strict=True))
    assert all(picture.shape == (64, 96, 4) and (picture[..., 3] == 255).all() for picture in together)


@pytest.mark.parametrize("size", [(1, 1), (7, 3), (33, 129)])
def test_odd_sizes(square, size):
    assert square.render([camera((0, 0, 2, 0, 0, 0), CameraKind.RGB, *size)], [], Weather())[0].shape == (
        *size[::-1],
        4,
    )


def test_nonsense_is_refused_in_one_sentence(square):
    good, car = camera((0, 0, 2, 0, 0, 0)), coupe((8, 0, 0, 0, 0, 0))
    with pytest.raises(ValueError, match=r"cannot draw Camera.*at least 1x1"):
        square.render([dataclasses.replace(good, width=0)], [], Weather())
    with pytest.raises(ValueError, match=r"cannot draw Camera.*0 and 180"):
        square.render([dataclasses.replace(good, fov_deg=180.0)], [], Weather())
    with pytest.raises(ValueError, match=r"cannot draw Camera.*finite"):
        square.render([dataclasses.replace(good, pose=(0, 0, np.nan, 0, 0, 0))], [], Weather())
    with pytest.raises(ValueError, match=r"cannot draw Body.*above zero"):
        square.render([good], [dataclasses.replace(car, half=(2.0, 0.0, 1.0))], Weather())
    with pytest.raises(ValueError, match=r"cannot light a town.*finite"):
        square.render([good], [], Weather(fog_density=float("inf")))


def test_the_road_lies_ahead_of_a_town_spawn_point_with_lane_lines_and_buildings(town: Town, town_renderer: Renderer):
    pose = town.spawn_points[7]
    eye = (pose[0], pose[1], 1.75, 0.0, pose[4], 0.0)
    kinds = (CameraKind.RGB, CameraKind.SEMANTIC)
    colours, codes = town_renderer.render([camera(eye, kind, 192, 128) for kind in kinds], [], Weather())
    tags = codes[..., 2]
    assert (tags[90:] == Label.ROADS).mean() > 0.4
    assert {Label.ROAD_LINES, Label.SIDEWALKS, Label.BUILDINGS, Label.SKY} <= set(np.unique(tags))
    assert 50 < brightness(colours).mean() < 200
    facades = brightness(colours)[tags == Label.BUILDINGS]
    assert facades.std() > 15  # windows and walls


def test_a_still_scene_does_not_flicker(town: Town, town_renderer: Renderer):
    """A camera that moves by 1 mm sees almost the same picture: no noise tied to pixels, no fighting surfaces."""
    pose = town.spawn_points[3]
    views = [camera((pose[0] + d, pose[1], 1.75, 0.0, pose[4], 0.0), width=192, height=128) for d in (0.0, 0.001)]
    first, second = (picture.astype(float) for picture in town_renderer.render(views, [], Weather()))
    assert (np.abs(first - second).max(-1) > 24).mean() < 0.005


def test_every_view_of_the_rig_differs(town: Town, town_renderer: Renderer):
    x, y, _, _, yaw, _ = town.spawn_points[11]
    views = [camera((x, y, 1.75, 0.0, yaw + mount[4], 0.0)) for mount in MOUNTS.values()]
    pictures = town_renderer.render(views, [], Weather())
    assert len({picture.tobytes() for picture in pictures}) == 4


def test_scenery_of_the_largest_town_is_built_within_300_mb():
    areas = {name: town_area(towns.load_town(name)) for name in towns.town_names()}
    largest = max(areas, key=areas.__getitem__)
    done = subprocess.run(
        [sys.executable, "-c", PEAK_MEMORY, largest], cwd=ROOT, capture_output=True, text=True, check=True
    )
    scenery_mb, with_renderer_mb = map(float, done.stdout.split())
    assert scenery_mb < 300
    assert with_renderer_mb < 450


def town_area(town: Town) -> float:
    x, y = np.array(town.spawn_points)[:, :2].T
    return float(np.ptp(x) * np.ptp(y))
