"""Sun, shade, fog, wet roads, cars' colours."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from infra.minicarla.render import Renderer
from infra.minicarla.scenery import Camera, CameraKind, Ground, Label, Weather
from tasks.planning.weather import WEATHERS

from .conftest import brightness, camera, coupe, metres, scenery

EYE = (0.0, 0.0, 1.75, 0.0, 0.0, 0.0)
NOON = Weather(sun_altitude_angle=60.0, sun_azimuth_angle=90.0)
WET = Weather(**WEATHERS["wet_overcast"])


def test_the_default_weather_is_lit(draw):
    picture = brightness(draw(camera(EYE)))
    assert picture.mean() > 60
    assert picture[:10].mean() > 110  # the sky


@pytest.mark.parametrize("name", WEATHERS)
def test_every_weather_of_the_plan_is_lit_and_has_contrast(draw, name):
    picture = brightness(draw(camera(EYE), coupe((8, 1, 0, 0, 0, 0)), weather=Weather(**WEATHERS[name])))
    assert 50 < picture.mean() < 200
    assert picture.std() > 15


def test_a_car_and_a_building_shade_the_road(draw):
    sun_from_the_right = NOON
    bare = brightness(draw(camera((0, 0, 9, -89.9, 0, 0)), weather=sun_from_the_right))
    shaded = brightness(draw(camera((0, 0, 9, -89.9, 0, 0)), coupe((0, 0, 0, 0, 0, 0)), weather=sun_from_the_right))
    road = draw(camera((0, 0, 9, -89.9, 0, 0), CameraKind.SEMANTIC), coupe((0, 0, 0, 0, 0, 0)))[..., 2] == Label.ROADS
    darker = road & (shaded < 0.75 * bare)
    assert darker.sum() > 30
    assert np.nonzero(darker)[1].mean() < 48  # on the left, away from the sun
    over_the_building = brightness(draw(camera((20, 3, 9, -89.9, 0, 0)), weather=sun_from_the_right))
    assert over_the_building[20:44, 43:50].mean() < 0.75 * bare.mean()


def test_the_evening_sun_casts_longer_shadows(draw):
    def shade_of(altitude: float) -> int:
        weather = dataclasses.replace(NOON, sun_altitude_angle=altitude)
        view = camera((0, -4, 14, -89.9, 0, 0))
        bare, with_car = (brightness(draw(view, *b, weather=weather)) for b in ((), (coupe((0, 0, 0, 0, 0, 0)),)))
        return int((with_car < 0.85 * bare).sum())

    assert shade_of(15.0) > 1.5 * shade_of(60.0)


def test_the_sun_overhead_draws(draw):
    assert brightness(draw(camera(EYE), weather=dataclasses.replace(NOON, sun_altitude_angle=90.0))).mean() > 60


def test_fog_takes_contrast_the_more_the_farther(draw):
    def contrast(x: float, fog: float) -> float:
        view = Camera(CameraKind.RGB, EYE, 96, 64, 60.0 if x < 20 else 20.0)
        weather = dataclasses.replace(NOON, fog_density=fog)
        with_car = draw(view, coupe((x, 0, 0, 0, 0, 0)), weather=weather).astype(float)
        return float(np.abs(with_car - draw(view, weather=weather))[..., :3].max())

    near, far = (contrast(x, 40.0) / contrast(x, 0.0) for x in (8.0, 55.0))
    assert far < 0.8 * near < 0.95


def test_a_wet_road_mirrors_a_car(square):
    dry = dataclasses.replace(WET, wetness=0.0, precipitation_deposits=0.0)
    assert reddened(square, dry) == 0
    assert reddened(square, WET) > 100


def test_grass_does_not_mirror():
    assert reddened(Renderer(scenery(Ground.GRASS), threads=1), WET) == 0


def reddened(renderer: Renderer, weather: Weather) -> int:
    """How many pixels of the ground, not next to the car itself, a red car makes redder."""
    car, view = coupe((9.0, 0, 0, 0, 0, 0)), camera(EYE, width=192, height=128)
    codes, with_car = renderer.render([camera(EYE, CameraKind.SEMANTIC, 192, 128), view], [car], weather)
    without = renderer.render([view], [], weather)[0]
    own = codes[..., 2] == Label.CAR
    beside = own | np.roll(own, 1, 0) | np.roll(own, -1, 0) | np.roll(own, 1, 1) | np.roll(own, -1, 1)
    added = with_car.astype(float) - without
    redness = added[..., 2] - (added[..., 1] + added[..., 0]) / 2
    return int((redness[~beside] > 5).sum())


SIDES = {"behind": (-6.0, 0.0, 0.0), "front": (6.0, 0.0, 180.0), "left": (0.0, -5.0, 90.0), "right": (0.0, 5.0, -90.0)}


@pytest.mark.parametrize("azimuth", [0.0, 90.0, 225.0])
@pytest.mark.parametrize("side", SIDES)
def test_a_red_coupe_is_red_from_every_side_in_sun_and_in_its_own_shade(draw, side, azimuth):
    x, y, yaw = SIDES[side]
    assert red_share(draw, (x, y, 1.75, -4.0, yaw, 0.0), (0, 0, 0, 0, 0, 0), azimuth) > 0.3


def test_a_red_coupe_is_red_in_the_shade_of_a_building(draw):
    place = (20.0, 2.0, 0.0, 0.0, 0.0, 0.0)  # just left of the wall, sun from the right
    assert red_share(draw, (14.0, 2.0, 1.75, -4.0, 0.0, 0.0), place, 90.0) > 0.3


def red_share(draw, eye, place, azimuth: float) -> float:
    weather = dataclasses.replace(NOON, sun_azimuth_angle=azimuth)
    picture = draw(camera(eye, width=192, height=128), coupe(place), weather=weather).astype(float)
    codes = draw(camera(eye, CameraKind.INSTANCE, 192, 128), coupe(place))
    mask = (codes[..., 2] == Label.CAR) & (codes[..., 1] == 7)
    assert mask.sum() > 300
    red, green = picture[..., 2][mask], picture[..., 1][mask]
    return float(((red > 1.6 * green) & (red > 60)).mean())


def test_depth_is_the_same_in_every_weather(draw):
    view = camera(EYE, CameraKind.DEPTH)
    clear, wet = (metres(draw(view, coupe((9, 0, 0, 0, 0, 0)), weather=w)) for w in (NOON, WET))
    assert np.array_equal(clear, wet)
