"""`python -m tests.tasks.recording.on_cluster FOLDER`: records the plan of a folder on two raylets, and loses one
while each records.

The nodes say that they have a GPU and two places for CARLA, which is a script that runs the embedded server.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from pathlib import Path

from infra.carla_servers import SimulatorSpec
from infra.carla_servers.launcher import ADAPTERS, EXECUTABLE
from infra.storage import TEMPORARY_PREFIX
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

        def lose_one() -> None:
            while len(list(folder.glob(f"recordings/{TEMPORARY_PREFIX}*/w*"))) < 2:
                time.sleep(0.05)  # the file system has no event to wait for
            lose_node(cluster, nodes[1])

        threading.Thread(target=lose_one, daemon=True).start()
        spec = SimulatorSpec("carla", options=("--threads", "1"))
        print(record_plan(folder, spec, servers="fit"), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
