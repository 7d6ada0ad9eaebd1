"""`python -m tasks.planning.check_opendrive FILE ...`: read maps in a process that may crash (trap 14: malformed
OpenDRIVE crashes).

carla.Map ends the process on some malformed files; a survey runs this first and only then reads a map itself.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tasks.planning.errors import PlanningError


def check_files(paths: list[Path]) -> None:
    """Raise PlanningError naming the first map that carla cannot use."""
    for path in paths:
        command = [sys.executable, "-m", "tasks.planning.check_opendrive", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            reason = f"it crashed carla ({-done.returncode})" if done.returncode < 0 else lines[-1] if lines else "?"
            raise PlanningError(f"the road network {path.name} cannot be used: {reason}.")


def main() -> int:
    import carla

    for name in sys.argv[1:]:
        road_map = carla.Map(Path(name).stem, Path(name).read_text(encoding="utf-8"))
        if not road_map.get_topology():
            print("it has no drivable lanes", file=sys.stderr)
            return 1
        for waypoint in road_map.generate_waypoints(10.0):
            waypoint.next(5.0)
            if waypoint.is_junction:
                waypoint.get_junction().get_waypoints(carla.LaneType.Driving)
    return 0


if __name__ == "__main__":
    sys.exit(main())
