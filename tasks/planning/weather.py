"""The paper's three weathers, as CARLA's numbers (carla.WeatherParameters; percent and degrees)."""

from __future__ import annotations

COMMON = {
    "wind_intensity": 10.0,
    "sun_azimuth_angle": 45.0,
    "fog_distance": 0.75,
    "fog_falloff": 0.1,
    "scattering_intensity": 1.0,
    "mie_scattering_scale": 0.03,
    "rayleigh_scattering_scale": 0.0331,
    "dust_storm": 0.0,
}

WEATHERS: dict[str, dict[str, float]] = {
    "clear_noon": COMMON
    | {
        "cloudiness": 10.0,
        "precipitation": 0.0,
        "precipitation_deposits": 0.0,
        "sun_altitude_angle": 60.0,
        "fog_density": 0.0,
        "wetness": 0.0,
    },
    "wet_overcast": COMMON
    | {
        "cloudiness": 90.0,
        "precipitation": 30.0,
        "precipitation_deposits": 80.0,
        "sun_altitude_angle": 45.0,
        "fog_density": 5.0,
        "wetness": 80.0,
    },
    "foggy_sunset": COMMON
    | {
        "cloudiness": 30.0,
        "precipitation": 0.0,
        "precipitation_deposits": 0.0,
        "sun_altitude_angle": 8.0,
        "fog_density": 40.0,
        "wetness": 0.0,
    },
}
