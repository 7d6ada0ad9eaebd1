"""The embedded CARLA's towns: road networks written as OpenDRIVE, and the scenery that is placed along any of them."""

from .build import build_scenery
from .catalogue import load_town, town_from_opendrive, town_names
from .errors import TownError
from .validation import MapReport, validate_opendrive, validate_opendrives

__all__ = [
    "MapReport",
    "TownError",
    "build_scenery",
    "load_town",
    "town_from_opendrive",
    "town_names",
    "validate_opendrive",
    "validate_opendrives",
]
