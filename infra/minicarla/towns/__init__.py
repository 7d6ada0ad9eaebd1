"""The embedded CARLA's towns: road networks written as OpenDRIVE, and the scenery that is placed along any of them."""

from .build import build_scenery
from .catalogue import load_town, map_files, town_from_opendrive, town_names
from .errors import TownError
from .job import SceneryJob
from .library import TownLibrary
from .validation import MapReport, validate_opendrive, validate_opendrives

__all__ = [
    "MapReport",
    "SceneryJob",
    "TownError",
    "TownLibrary",
    "build_scenery",
    "load_town",
    "map_files",
    "town_from_opendrive",
    "town_names",
    "validate_opendrive",
    "validate_opendrives",
]
