"""Requests to the stack's Prefect server, over HTTP and through Prefect's own command."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping

from infra.installation import CODE
from infra.stack.environment import environment
from infra.stack.password import authorization, password_file
from infra.stack.services import RESTART, StackError

DEPLOYMENTS = CODE / "flows" / "prefect.yaml"
"""In a clone a link to the prefect.yaml above; wheels carry its content."""
POOLS = ("local", "cluster")
NO_PLUGINS = {"PREFECT_PLUGINS_ENABLED": "false"}
ANSWER_TIMEOUT_S = 20.0
NO_PROXY_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Opens addresses of this machine without the proxy that the environment may name for others."""


def http_request(
    url: str, headers: Mapping[str, str] | None = None, body: object = None, method: str | None = None
) -> tuple[int, bytes]:
    """Return status and body of a GET, or of a POST where there is a `body` (as JSON). Status 0: nobody answers."""
    data = None if body is None else json.dumps(body).encode()
    message = urllib.request.Request(url, data, {"Content-Type": "application/json", **(headers or {})}, method=method)
    try:
        with NO_PROXY_OPENER.open(message, timeout=ANSWER_TIMEOUT_S) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, b""
    except OSError:
        return 0, b""


def password_works(address: str) -> bool:
    """Tell whether the server asks for a password and accepts this home's. False while it does not answer.

    StackError when it lets anybody in, or refuses the password.
    """
    version = f"{address}/api/admin/version"
    without, with_it = http_request(version)[0], http_request(version, authorization())[0]
    if 0 not in (without, with_it) and (without, with_it) != (401, 200):
        raise StackError(
            f"Prefect at {address} answers {without} without a password and {with_it} with that of {password_file()}, "
            f"where 401 and 200 belong: {RESTART}."
        )
    return (without, with_it) == (401, 200)


def worker_is_online(address: str, name: str) -> bool:
    """Tell whether the server lists the worker `name` as online."""
    status, body = http_request(f"{address}/api/work_pools/local/workers/filter", authorization(), {})
    return status == 200 and any(w["name"] == name and w["status"] == "ONLINE" for w in json.loads(body))


def run_python(*arguments: str) -> str:
    """Run this Python with the services' environment; return its output. StackError with the last lines otherwise."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=CODE,
        env=environment() | NO_PLUGINS,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        output = (done.stdout + done.stderr).strip()[-2000:]
        raise StackError(f"`python {' '.join(arguments)}` failed with code {done.returncode}:\n{output}")
    return done.stdout


def register_deployments() -> None:
    """Create the work pools and the deployments of prefect.yaml, or bring them up to date.

    Their flows are loaded from the folder in which this is done (see `run_python`).
    """
    for pool in POOLS:
        run_python("-m", "prefect", "--no-prompt", "work-pool", "create", pool, "--type", "process", "--overwrite")
    run_python("-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(DEPLOYMENTS))


def crash_abandoned_runs() -> None:
    """Mark the flow runs as crashed that a killed worker left running.

    Call it only when this home's worker is down: every run of the pool `local` was its child.
    """
    run_python("-m", "infra.stack.abandoned_runs")
