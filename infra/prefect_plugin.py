"""Lets `prefect deployment run collect-dataset` mean `collect-dataset/local`.

Prefect wants `<flow>/<deployment>`. Its plugin hook runs when `prefect` is imported, before the command line is read,
and completes the name. `SHAREVERSE_DEPLOYMENT` sets another default than `local`. The hook works inside the repository
only, where pyproject.toml enables it.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from prefect.plugins import register_hook

FLOWS = frozenset({"collect-dataset", "train-shareverse", "evaluate-shareverse", "shareverse", "ablate-shareverse"})


def complete_deployment_name(argv: list[str], deployment: str) -> list[str]:
    """Return `argv` with a bare flow name after `deployment run` completed to `<flow>/<deployment>`."""
    for start in range(1, len(argv) - 1):
        if argv[start] in ("deployment", "deployments") and argv[start + 1] == "run":
            break
    else:
        return list(argv)
    completed = list(argv)
    for position in range(start + 2, len(argv)):
        takes_value = argv[position - 1] in (
            "--param",
            "-p",
            "--params",
            "--tag",
            "--job-variable",
            "-jv",
            "--flow-run-name",
        )
        if argv[position] in FLOWS and not takes_value:
            completed[position] = f"{argv[position]}/{deployment}"
            break
    return completed


@register_hook
def setup_environment(*, ctx: Any) -> None:
    """Complete the deployment's name in this process's command line."""
    sys.argv[:] = complete_deployment_name(sys.argv, os.environ.get("SHAREVERSE_DEPLOYMENT", "local"))
