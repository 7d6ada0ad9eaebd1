"""Runs a deployment's flow in this process, without a worker: for a batch job on a cluster.

    python -m flows.batch collect-dataset/paper --param dataset=trial --param servers=fit

PREFECT_API_URL says which Prefect server keeps the run's log; unset, Prefect starts a temporary one. SIGTERM ends
the run in order. The same command goes on from what is on disk.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
import yaml

from flows.cli import parse_assignments

DEPLOYMENTS = Path(__file__).with_name("prefect.yaml")

SETTINGS = {
    "PREFECT_PLUGINS_ENABLED": "false",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",
}
"""Prefect's settings where the user gives no others. A temporary server's database takes a minute on a busy node."""


class UnknownDeployment(ValueError):
    """prefect.yaml has no deployment of this name."""


def find_deployment(name: str) -> dict[str, Any]:
    """Return the entry of prefect.yaml for `<flow>/<deployment>`. UnknownDeployment where there is none."""
    entries = yaml.safe_load(DEPLOYMENTS.read_text())["deployments"]
    by_name = {f"{flow_name(entry)}/{entry['name']}": entry for entry in entries}
    if name not in by_name:
        raise UnknownDeployment(f"{name!r} is no deployment: give one of {', '.join(sorted(by_name))}.")
    return by_name[name]


def flow_name(entry: dict[str, Any]) -> str:
    """Return the name of a deployment's flow: its function's, with hyphens."""
    return entry["entrypoint"].split(":")[1].replace("_", "-")


def run_deployment_here(name: str, parameters: dict[str, Any]) -> Any:
    """Run a deployment's flow with its parameters and these; return what the flow returns.

    UnknownDeployment for a name that is none. Errors of the flow pass through.
    """
    entry = find_deployment(name)
    for setting, value in SETTINGS.items():
        os.environ.setdefault(setting, value)
    from prefect.flows import load_flow_from_entrypoint

    path, function = entry["entrypoint"].split(":")
    flow = load_flow_from_entrypoint(f"{path.removesuffix('.py').replace('/', '.')}:{function}")
    return flow(**entry["parameters"] | parameters)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one flow and print what it returns, as JSON; return 2 for a name or parameter that cannot be understood."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("deployment", help="<flow>/<deployment>, as in prefect.yaml")
    parser.add_argument("--param", action="append", metavar="KEY=VALUE", help="set a parameter of the flow; repeatable")
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that `finally` blocks run: Ray, servers and locks
    try:
        outcome = run_deployment_here(given.deployment, parse_assignments(given.param, "--param"))
    except (UnknownDeployment, typer.BadParameter) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{given.deployment} was told to end: the same command goes on from what is on disk.", file=sys.stderr)
        return 128 + signal.SIGTERM
    print(json.dumps(outcome, indent=1, default=str))
    return 0


if __name__ == "__main__":
    sys.exit(main())
