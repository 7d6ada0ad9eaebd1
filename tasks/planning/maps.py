"""The towns' road networks in maps/ of a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from infra.reading import read_bytes
from infra.storage import OnProgress, atomic_file
from tasks.planning.errors import PlanningError
from tasks.planning.preset import PlanPreset
from tasks.planning.rows import PLAN_ANEW


def fetch_maps(dataset_dir: Path, preset: PlanPreset, server: Any, on_progress: OnProgress) -> dict[str, str]:
    """Save the towns' road networks, as a running server gives them, in maps/; return their OpenDRIVE texts."""
    import carla

    known = {name.rsplit("/", 1)[-1] for name in server.client.get_available_maps()}
    for town in preset.towns:
        if town not in known:
            raise PlanningError(f"the simulator has no town {town!r}: it has {', '.join(sorted(known))}.")
    maps = {}
    for done, town in enumerate(preset.towns):
        on_progress(done, len(preset.towns), f"survey of {town}")
        world = server.client.load_world(town, True, carla.MapLayer.NONE)
        maps[town] = world.get_map().to_opendrive()
        with atomic_file(dataset_dir / "maps" / f"{town}.xodr") as path:
            path.write_text(maps[town], encoding="utf-8")
    return maps


def read_map(dataset_dir: Path, town: str) -> str:
    """Return the OpenDRIVE text of a town, its line ends unchanged. PlanningError for a damaged file."""
    path = dataset_dir / "maps" / f"{town}.xodr"
    try:
        return read_bytes(path, PLAN_ANEW, PlanningError).decode()
    except UnicodeDecodeError as error:
        raise PlanningError(f"{path} is no text ({error}): {PLAN_ANEW}") from error
