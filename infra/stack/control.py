"""`up`, `down` and `status`."""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from functools import partial
from pathlib import Path

import psutil

from infra.installation import shell_command
from infra.private_files import private_folder, restrict_home
from infra.stack.environment import environment, write_dotenv
from infra.stack.mlflow_server import ARTIFACTS_DESTINATION, BACKEND_STORE
from infra.stack.password import auth_string, password_file
from infra.stack.prefect_client import (
    DEPLOYMENTS,
    NO_PLUGINS,
    crash_abandoned_runs,
    http_request,
    password_works,
    register_deployments,
    worker_is_online,
)
from infra.stack.services import (
    NAME_MARK,
    RESTART,
    SERVICE_NAMES,
    Service,
    StackError,
    end_orphaned_flows,
    find_services,
    free_port,
    launch,
    log_file,
    port_of,
    read_services,
    services_dir,
    stack_lock,
    stop,
    wait_for,
    write_service,
)
from infra.stack.stores import mlflow_artifacts, mlflow_database, prefect_database


def check_database(path: Path) -> None:
    """Raise StackError when a service's database is no SQLite database."""
    if not path.exists():
        return
    try:
        database = sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=5)
        try:
            database.execute("PRAGMA schema_version").fetchone()
        finally:
            database.close()
    except sqlite3.Error as error:
        raise StackError(
            f"{path} cannot be read ({error}): move it away and run `{shell_command('up')}` again. It holds the "
            "history that the service's pages show; data sets and runs lie elsewhere."
        ) from error


def start_prefect(port: int) -> Service:
    """Start the Prefect server."""
    folder = private_folder(services_dir() / "prefect")
    check_database(folder / "prefect.db")
    address = f"http://127.0.0.1:{port}"
    log = str(log_file("prefect"))
    command = [sys.executable, "-m", "infra.stack.prefect_server", "--port", str(port), "--log", log]
    settings = {
        "PREFECT_SERVER_API_AUTH_STRING": auth_string(),
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": prefect_database(folder),
        "PREFECT_SERVER_UI_API_URL": f"{address}/api",
    }
    return launch("prefect", command, address, environment() | NO_PLUGINS | settings)


def start_mlflow(port: int) -> Service:
    """Start the MLflow server."""
    folder = private_folder(services_dir() / "mlflow")
    check_database(folder / "mlflow.db")
    command = [sys.executable, "-m", "infra.stack.mlflow_server", str(port), str(log_file("mlflow"))]
    settings = {BACKEND_STORE: mlflow_database(folder), ARTIFACTS_DESTINATION: mlflow_artifacts(folder)}
    return launch("mlflow", command, f"http://127.0.0.1:{port}", environment() | settings)


def start_worker(prefect: str) -> None:
    """Start the worker and wait until the server at `prefect` hears from it."""
    name = f"worker-{time.time_ns()}"
    command = [sys.executable, "-m", "infra.stack.prefect_worker", "--name", name, "--log", str(log_file("worker"))]
    worker = launch("worker", command, prefect, environment() | NO_PLUGINS)
    wait_for(worker, lambda: worker_is_online(prefect, name))


def is_ready(service: Service) -> bool:
    """Tell whether a server answers that it is healthy."""
    path = "/api/health" if service.name == "prefect" else "/health"
    return http_request(service.address + path)[0] == 200


def ensure_server(name: str, known: Service | None, worker: psutil.Process | None) -> Service:
    """Return a server, started where it does not run. A running `worker` expects it at its old address."""
    if known and known.process():
        return known
    if worker:
        address = worker.environ().get(ADDRESS_VARIABLES[name], "").removesuffix("/api")
        if not address or free_port(port_of(address)) != port_of(address):
            raise StackError(
                f"{name} does not run, and another program listens at {address}, where the worker expects it: end that "
                f"program, or {RESTART}."
            )
        return START_SERVER[name](port_of(address))
    return START_SERVER[name](free_port(port_of(known.address) if known else None))


START_SERVER = {"prefect": start_prefect, "mlflow": start_mlflow}
ADDRESS_VARIABLES = {"prefect": "PREFECT_API_URL", "mlflow": "MLFLOW_TRACKING_URI"}
"""Variables of the worker's environment that hold the servers' addresses."""


def check_reusable(service: Service) -> None:
    """Raise StackError when a running service is of an earlier version or has another password."""
    process = service.process()
    if process is None:
        return
    variables = process.environ()
    if NAME_MARK not in variables:
        reason = "was started by an earlier version, which lets anybody in"
    elif variables.get("PREFECT_API_AUTH_STRING") != auth_string():
        reason = f"was started with another password than {password_file()} holds"
    else:
        return
    raise StackError(f"{service.name} (pid {service.pid}) {reason}: {RESTART}.")


def start_servers(known: dict[str, Service], worker: psutil.Process | None) -> str:
    """Start the servers that do not run, wait until both answer, and return Prefect's address."""
    servers = [ensure_server(name, known.get(name), worker) for name in START_SERVER]
    for server in servers:
        wait_for(server, partial(is_ready, server))
        write_service(server)  # it may have been found by its environment alone
    prefect = servers[0]
    wait_for(prefect, partial(password_works, prefect.address))
    return prefect.address


def up() -> None:
    """Start what is not running; afterwards Prefect, MLflow and the worker answer and all deployments exist.

    A running worker is left alone, and so are its flow runs: a server that died comes back at its old address.
    """
    if not DEPLOYMENTS.is_file():
        raise StackError(f"{DEPLOYMENTS} is missing: install ShareVerse again, or restore the clone's prefect.yaml.")
    os.umask(0o077)
    private_folder(services_dir())
    with stack_lock():
        restrict_home()
        known = read_services()
        for service in known.values():
            check_reusable(service)
        worker = known.get("worker")
        worker_process = worker.process() if worker else None
        prefect = start_servers(known, worker_process)
        write_dotenv()
        if worker and worker_process:
            write_service(worker)  # it may have been found by its environment alone
        else:
            end_orphaned_flows()
            register_deployments()
            crash_abandoned_runs()
            start_worker(prefect)


def down() -> None:
    """End exactly what `up` started, the worker first."""
    with stack_lock():
        services = [*read_services().values(), *find_services()]
        for name in reversed(SERVICE_NAMES):
            for service in services:
                if service.name == name:
                    stop(service)


def status_lines() -> list[str]:
    """Return one line per service: name, state, address, pid."""
    services = read_services()
    lines = []
    for name in SERVICE_NAMES:
        service = services.get(name)
        if service is None:
            lines.append(f"{name} stopped - -")
        else:
            lines.append(f"{name} {'running' if service.process() else 'stopped'} {service.address} {service.pid}")
    return lines
