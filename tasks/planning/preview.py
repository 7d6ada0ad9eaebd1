"""`python -m tasks.planning.preview PRESET MAPS`: what a plan gives on road networks MAPS/<town>.xodr.

No simulator is needed. Prints, per town and trajectory type, the planned scenes of those that are possible, and what
lacks. Towns without a file in MAPS are left out, unless they are named. `--override KEY=VALUE` changes a field of the
preset; `--pictures FOLDER` draws every town with its planned paths by trajectory type.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from tasks.planning.check_opendrive import check_files
from tasks.planning.errors import PlanningError
from tasks.planning.picture import town_picture
from tasks.planning.plan import plan_data_set
from tasks.planning.preset import PlanPreset
from tasks.planning.roads import RoadNetwork
from tasks.planning.summary import shortfalls, table


def override(text: str) -> tuple[str, Any]:
    """Return field and value of KEY=VALUE; the value is JSON, or a text."""
    name, _, value = text.partition("=")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def preset_for(name: str, maps: Path, changes: dict[str, Any]) -> PlanPreset:
    """Return a preset whose towns have a map in the folder `maps`. PlanningError where none has."""
    preset = PlanPreset.load(name)
    towns = changes.get("towns") or [town for town in preset.towns if (maps / f"{town}.xodr").is_file()]
    if not towns:
        raise PlanningError(f"{maps} holds no road network of {', '.join(preset.towns)}: name files after their towns.")
    return preset.replace(**{**changes, "towns": towns})


def main(words: list[str] | None = None) -> int:
    """Do what the words say, by default those of the command line; return 0, or 1 with a sentence on stderr."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset")
    parser.add_argument("maps", type=Path)
    parser.add_argument("--override", type=override, action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER")
    arguments = parser.parse_args(words)
    try:
        preset = preset_for(arguments.preset, arguments.maps, dict(arguments.override))
        files = {town: arguments.maps / f"{town}.xodr" for town in preset.towns}
        check_files(list(files.values()))
        began = time.process_time()
        maps = {town: path.read_text(encoding="utf-8") for town, path in files.items()}
        planned = plan_data_set(preset, maps)
        seconds = time.process_time() - began
    except (PlanningError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(table(preset, planned.cells))
    for sentence in shortfalls(preset, planned.cells):
        print(sentence)
    print(
        f"{planned.recordings.num_rows} recordings and {planned.spares.num_rows} spare ones, "
        f"planned in {seconds:.0f} CPU seconds."
    )
    if arguments.pictures:
        arguments.pictures.mkdir(parents=True, exist_ok=True)
        for town, opendrive in maps.items():
            town_picture(arguments.pictures / f"{town}.png", preset, RoadNetwork(town, opendrive), planned.recordings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
