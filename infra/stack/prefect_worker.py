"""Prefect's process worker, which waits for its server however long that is gone.

python -m infra.stack.prefect_worker [--pool local] [--name NAME] [--log FILE]
"""

from __future__ import annotations

import argparse
import runpy
import sys
from pathlib import Path
from typing import Any

import prefect.workers.base
from prefect._internal import observers
from prefect.utilities.services import critical_service_loop

from infra.stack.log_size import keep_small


async def loop_without_end(*arguments: Any, **options: Any) -> None:
    """Run Prefect's service loop, and start it again when it gives up, about 45 seconds after the server went away.

    Otherwise the worker would end, and every training in it.
    """
    while True:
        try:
            return await critical_service_loop(*arguments, **options)
        except RuntimeError as error:
            if "exceeded error threshold" not in str(error):
                raise
            print("The Prefect server is gone; the worker goes on trying to reach it.", flush=True)


def main() -> None:
    """Work until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", default="local")
    parser.add_argument("--name", help="what Prefect's page calls the worker")
    parser.add_argument("--log", type=Path, help="the file that standard output goes to, to be kept small")
    given = parser.parse_args()
    if given.log:
        keep_small(given.log)
    prefect.workers.base.critical_service_loop = loop_without_end
    observers.critical_service_loop = loop_without_end  # the loop that looks for cancelled runs gives up too
    sys.argv[:] = ["prefect", "worker", "start", "--pool", given.pool, "--type", "process"]
    sys.argv += ["--name", given.name] if given.name else []
    runpy.run_module("prefect", run_name="__main__")


if __name__ == "__main__":
    main()
