"""Weather to light: sun, sky, fog and wetness from CARLA's numbers. Linear light, 1 = white in soft shade."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from infra.minicarla.scenery import Weather

RGB = tuple[float, float, float]


class Light(NamedTuple):
    """What shading needs of the weather."""

    sun_x: float
    sun_y: float
    sun_z: float
    """Unit vector towards the sun, CARLA's axes."""
    sun: RGB
    ambient: RGB
    zenith: RGB
    horizon: RGB
    fog: RGB
    fog_sun: RGB
    """Fog towards the sun."""
    flat_x: float
    flat_y: float
    """Unit vector towards the sun in the plane."""
    lamps: float
    """0..1: how far lamps and lit windows are on."""
    fog_per_m: float
    wet: float
    clouds: float
    clear: np.ndarray
    """[1001] what is left of the light after so many metres of fog"""


def mix(first: RGB, second: RGB, share: float) -> RGB:
    a, b, c = (x + (y - x) * share for x, y in zip(first, second, strict=True))
    return a, b, c


def light_of(weather: Weather) -> Light:
    """Return the light of CARLA's weather numbers."""
    altitude = math.radians(min(max(weather.sun_altitude_angle, 3.0), 88.0))
    azimuth = math.radians(weather.sun_azimuth_angle)
    low = 1.0 - min(max(weather.sun_altitude_angle - 4.0, 0.0) / 26.0, 1.0)
    night = min(max(-weather.sun_altitude_angle, 0.0) / 10.0, 1.0)
    cover = min(max(weather.cloudiness / 100.0, 0.0), 1.0) ** 1.5
    haze = min(max(weather.fog_density / 100.0, 0.0), 1.0)
    wet = min(max(weather.wetness, weather.precipitation_deposits, 0.0) / 80.0, 1.0)
    sun = mix((2.0, 1.88, 1.68), (2.6, 1.35, 0.55), low)
    sun = mix(sun, (0.22, 0.22, 0.23), cover)
    ambient = mix((0.44, 0.51, 0.62), (0.42, 0.38, 0.42), low)
    ambient = mix(ambient, (0.60, 0.64, 0.68), cover)
    zenith = mix((0.12, 0.28, 0.62), (0.22, 0.27, 0.44), low)
    zenith = mix(zenith, (0.42, 0.46, 0.51), cover)
    horizon = mix((0.55, 0.70, 0.86), (0.95, 0.56, 0.30), low)
    horizon = mix(horizon, (0.58, 0.62, 0.66), cover)
    fog = mix(horizon, mix((0.70, 0.74, 0.78), (0.66, 0.50, 0.44), low), 0.7)
    fog_sun = mix(fog, mix((0.80, 0.80, 0.78), (1.35, 0.82, 0.42), low), 1.0 - cover)
    lamps = min(max((12.0 - weather.sun_altitude_angle) / 4.0, 0.0), 1.0)
    dark = 1.0 - 0.93 * night
    sun, ambient, zenith, horizon, fog, fog_sun = (
        mix((0.0, 0.0, 0.0), c, dark) for c in (sun, ambient, zenith, horizon, fog, fog_sun)
    )
    density = 0.0006 + 0.025 * haze + 0.0022 * min(weather.precipitation / 30.0, 2.0)
    return Light(
        math.cos(altitude) * math.cos(azimuth),
        math.cos(altitude) * math.sin(azimuth),
        math.sin(altitude),
        sun,
        ambient,
        zenith,
        horizon,
        fog,
        fog_sun,
        math.cos(azimuth),
        math.sin(azimuth),
        lamps,
        density,
        wet,
        0.30 + 0.62 * min(max(weather.cloudiness / 100.0, 0.0), 1.0),
        np.exp(-density * np.arange(1001.0)),
    )
