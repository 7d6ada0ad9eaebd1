"""`python -m tests.tasks.recording.on_cluster FOLDER`: records the plan of a folder on two raylets, and loses one.

The nodes say that they have a GPU and two places for CARLA, which is a script that runs the embedded server.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from infra.carla_servers import SimulatorSpec
from infra.carla_servers.launcher import ADAPTERS, EXECUTABLE
from tasks.recording.pool import record_plan
from tests.ray_nodes import add_node, cluster_without_cpus, lose_node

STAND_IN = f"""#!/bin/sh
echo "$@" >> $(dirname "$0")/launches
exec {sys.executable} -m infra.minicarla "$@"
"""


def main(folder: Path) -> None:
    logging.basicConfig(level=logging.INFO)
    script = folder / "CarlaUE4.sh"
    script.write_text(STAND_IN)
    script.chmod(0o755)
    os.environ |= {EXECUTABLE: str(script), ADAPTERS: "0:3"}  # the raylets inherit them
    with cluster_without_cpus() as cluster:
        nodes = [add_node(cluster, gpus=1, carla=1), add_node(cluster, gpus=1, carla=1)]

        def lose_one(done: int, total: int, note: str) -> None:
            if done == 1 and len(nodes) == 2:
                lose_node(cluster, nodes.pop())

        spec = SimulatorSpec("carla", options=("--threads", "1"))
        print(record_plan(folder, spec, servers="fit", on_progress=lose_one), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
