"""A recording in a process of its own, what a test may kill of it, and whether its bytes are those of an undisturbed
one. The server stands behind a script that does not exec it, as CarlaUE4.sh is shipped."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path

import psutil

from infra.carla_servers import SimulatorSpec
from infra.storage import sha256_file
from tasks.planning.plan import make_plan
from tasks.planning.preset import PlanPreset
from tasks.planning.rows import PLAN_FILE, read_plan
from tasks.recording.actor import RecorderActor
from tests.processes import Family

ROOT = Path(__file__).resolve().parents[3]
PLANNED = ("plan.parquet", "plan.json", "maps")
STAND_IN = f"""#!/bin/sh
(setsid sleep 100000 &)
{sys.executable} -m infra.minicarla "$@"
true
"""
DRIVER = """
import sys
from pathlib import Path
from infra.actor_pool import Recycling
from infra.carla_servers import SimulatorSpec
from tasks.recording.pool import record_plan

def told(done, total, note):
    print(done, flush=True)

folder, script, items = sys.argv[1:]
spec = SimulatorSpec("carla", script, options=("--threads", "1")) if script else SimulatorSpec()
print(record_plan(Path(folder), spec, servers=1, recycling=Recycling(items=float(items)), on_progress=told), flush=True)
"""
VICTIMS = ("server", "actor", "script")
"""What ends at random while a run goes on."""


def copy_plan(source: Path, folder: Path) -> Path:
    """Make a folder with the plan of another data set, and nothing recorded."""
    folder.mkdir()
    for name in PLANNED:
        (shutil.copytree if (source / name).is_dir() else shutil.copy)(source / name, folder / name)
    return folder


def stand_in(folder: Path) -> Path:
    """Write the script that stands for CarlaUE4.sh; return its path."""
    script = folder / "CarlaUE4.sh"
    script.write_text(STAND_IN)
    script.chmod(0o755)
    return script


def start_recording(folder: Path, ours: Family, script: Path | str = "", recycle: float = float("inf")):
    """Start a run on one server in a process of its own, which prints what is done and then the summary."""
    command = [sys.executable, "-c", DRIVER, str(folder), str(script), str(recycle)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=ours.environment)


def find(ours: Family, victim: str) -> list[psutil.Process]:
    """Return the processes of one of VICTIMS; the supervisor of a server has its command line too, and is none."""
    mark = {
        "server": lambda words: words[1:3] == ["-m", "infra.minicarla"],
        "actor": lambda words: words[0].startswith("ray::RecorderActor"),
        "script": lambda words: words[1:2] and words[1].endswith("CarlaUE4.sh"),
    }[victim]
    return [process for process, words in ours.commands() if words and mark(words)]


def kill(ours: Family, victim: str) -> bool:
    """Kill the processes of one of VICTIMS; tell whether there were any."""
    found = find(ours, victim)
    for process in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    return bool(found)


def record_undisturbed(folder: Path, spec: SimulatorSpec, **changes) -> int:
    """Plan the preset `tiny` with these changes and record it on one server, without Ray; return how many there are."""
    folder.mkdir(parents=True, exist_ok=True)
    actor = RecorderActor(spec, str(folder), "undisturbed")
    try:
        actor.server.start()
        preset = PlanPreset.load("tiny").replace(**changes)
        make_plan(folder, preset, lambda: contextlib.nullcontext(actor.server))
        (folder / "recordings").mkdir()
        rows = read_plan(folder / PLAN_FILE)
        for row in rows:
            assert actor.attempt(row) == ("done", ""), row.recording_id
    finally:
        actor.close()
    return len(rows)


def hashes(folder: Path, pattern: str) -> dict[str, str]:
    """Return the hashes of a folder's files by their names in it."""
    return {str(path.relative_to(folder)): sha256_file(path) for path in folder.glob(pattern) if path.is_file()}


def recordings(folder: Path) -> dict[str, str]:
    return hashes(folder, "recordings/**/*")


def shards(folder: Path) -> dict[str, str]:
    return hashes(folder, "shards/*/*.tar")
