"""The towns by name, and how any OpenDRIVE text becomes one."""

from __future__ import annotations

import hashlib
import math
import re
from functools import lru_cache
from pathlib import Path
from random import Random

import numpy as np

from ..scenery import Pose, Town
from .errors import TownError
from .generators import LAYOUTS
from .road_network import Strip, read_road_network

SPAWN_EVERY_M = 25.0

STYLES = {
    "Mini01": "grid",
    "Mini02": "rural",
    "Mini03": "suburb",
    "Mini04": "ring",
    "Mini05": "downtown",
    "Mini06": "dual",
    "Mini07": "village",
    "Mini08": "boulevard",
    "Mini09": "adobe",
    "Mini10": "highland",
    "Mini11": "works",
    "Mini12": "bay",
    "Town01": "village",
    "Town02": "suburb",
    "Town03": "boulevard",
    "Town04": "highland",
    "Town05": "downtown",
    "Town06": "dual",
    "Town07": "rural",
    "Town10HD": "downtown",
}
"""Look of each town; towns that are not listed get one by their name's hash."""


def town_names(maps_dir: str | Path | None = None) -> list[str]:
    """The towns that `load_town` knows: Mini01 .. Mini12, then the .xodr files of maps_dir by their stem."""
    return [*LAYOUTS, *(sorted(map_files(maps_dir)[0]) if maps_dir else [])]


def map_files(maps_dir: str | Path) -> tuple[dict[str, Path], list[str]]:
    """The .xodr files of a folder by the names of their towns, and a sentence for each that cannot be a town's."""
    files, left_out = {}, []
    for path in sorted(Path(maps_dir).glob("*.xodr")):
        if path.stem in LAYOUTS:
            left_out.append(f"{str(path)!r} is left out: {path.stem} is one of the embedded towns; rename the file")
        elif not path.stem.isprintable():  # neither is a byte that is not UTF-8
            left_out.append(f"{str(path)!r} is left out: a town's name has to be printable UTF-8; rename the file")
        elif not path.is_file():
            left_out.append(f"{str(path)!r} is left out: it is no file")
        else:
            files[path.stem] = path
    return files, left_out


def load_town(name: str, maps_dir: str | Path | None = None) -> Town:
    """The town of that name (`/Game/Carla/Maps/Mini01` is Mini01 too). Its OpenDRIVE is a function of the name alone.

    A file `<name>.xodr` in maps_dir makes a town as well. TownError for an unknown name or an unusable file.
    """
    stem = name.rsplit("/", 1)[-1]
    if stem in LAYOUTS:
        return _mini_town(stem)
    return town_from_opendrive(stem, map_text(name, maps_dir))


def map_text(name: str, maps_dir: str | Path | None) -> str:
    """The text of the file `<name>.xodr` in maps_dir. TownError when there is none that can be read."""
    path = map_files(maps_dir)[0].get(name.rsplit("/", 1)[-1]) if maps_dir else None
    if path is None:
        raise TownError(f"there is no town {name!r}; known are {', '.join(town_names(maps_dir))}")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise TownError(f"{path} cannot be a town: byte {error.start} is not UTF-8; save the file as UTF-8") from error
    except OSError as error:
        raise TownError(f"{path} cannot be read: {error.strerror}") from error


@lru_cache(maxsize=16)
def _mini_town(name: str) -> Town:
    from .opendrive_writer import write_opendrive  # a second to import, and worker.py does without

    generator, parameters = LAYOUTS[name]
    return _town(name, write_opendrive(name, generator(Random(name), **parameters)))


def town_from_opendrive(name: str, xodr: str) -> Town:
    """Any valid OpenDRIVE text as a town. Heights are set to zero: roads, cars and scenery share one flat world.

    A flat text stays as it is, byte for byte. The text should have passed `validate_opendrive`: broken files can crash
    the clients that read it. TownError for a text without usable roads.
    """
    return _town(name, flattened(xodr))


def _town(name: str, xodr: str) -> Town:
    style = STYLES.get(re.sub(r"_(20\d\d|Opt)$", "", name))
    digest = hashlib.sha256(name.encode()).digest()
    return Town(
        name=name,
        opendrive=xodr,
        spawn_points=tuple(spawn_points(read_road_network(xodr))),
        style=style or sorted(set(STYLES.values()))[digest[0] % len(set(STYLES.values()))],
        seed=int.from_bytes(digest[1:5], "big"),
    )


_HEIGHTS = re.compile(r"<(?:elevation|superelevation|crossfall)\s[^<>]*>")
_COEFFICIENT = re.compile(r"""(\s[abcd]\s*=\s*["'])([^"']*)""")


def flattened(xodr: str) -> str:
    """The text with every elevation, superelevation and crossfall set to zero. TownError for one that is no number."""

    def flat(record: re.Match[str]) -> str:
        try:
            level = all(float(value) == 0.0 for _, value in _COEFFICIENT.findall(record.group(0)))
        except ValueError as error:
            raise TownError(f"the heights {record.group(0)[:200]!r} are no numbers; repair the file") from error
        return record.group(0) if level else _COEFFICIENT.sub(r"\g<1>0", record.group(0))

    return _HEIGHTS.sub(flat, xodr)


def spawn_points(strips: list[Strip]) -> list[Pose]:
    """Poses on the driving lanes outside junctions, about every 25 m, at least 8 m from the lanes' ends; z = 0."""
    poses: list[Pose] = []
    for strip in strips:
        length = float(strip.s[-1])
        if strip.kind != "driving" or strip.junction >= 0 or length < 16:
            continue
        count = max(1, round((length - 16) / SPAWN_EVERY_M))
        stations = np.linspace(8, length - 8, count + 1) if count > 1 else np.array([length / 2])
        centre = strip.centre
        for s in stations:
            x, y = (float(np.interp(s, strip.s, centre[:, k])) for k in (0, 1))
            yaw = math.degrees(float(np.interp(s, strip.s, strip.heading))) + (0 if strip.forward else 180)
            poses.append((round(x, 4), round(y, 4), 0.0, 0.0, round(math.remainder(yaw, 360), 4), 0.0))
    return poses
