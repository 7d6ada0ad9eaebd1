"""The local services, by pid: Prefect server, MLflow server, one Prefect worker.

    python -m infra.stack up | down | status

State lies under `SHAREVERSE_HOME/services/`. Ports are free ones, written down in services.json, so that two clones on
one machine do not collide. A service counts as running only while the process with the recorded pid *and* start time
lives; `down` ends exactly those process groups.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from infra.storage import atomic_file, home

REPOSITORY = Path(__file__).resolve().parent.parent
START_DEADLINE_S = 120.0
STOP_DEADLINE_S = 20.0
POOLS = ("local", "cluster")


class StackError(RuntimeError):
    """A local service did not start or stop."""


@dataclass(frozen=True)
class Service:
    """A process that `up` started. `started` is its kernel start time: a pid alone may be somebody else's by now."""

    name: str
    pid: int
    started: float
    address: str

    def process(self) -> psutil.Process | None:
        """Return the live process, None when it has ended."""
        try:
            process = psutil.Process(self.pid)
            alive = abs(process.create_time() - self.started) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return None
        return process if alive else None


def services_dir() -> Path:
    """Return the folder that holds the services' state, logs and services.json."""
    return home() / "services"


def read_services() -> dict[str, Service]:
    """Return the recorded services by name, running or not."""
    record = services_dir() / "services.json"
    if not record.exists():
        return {}
    return {entry["name"]: Service(**entry) for entry in json.loads(record.read_text())}


def write_service(service: Service) -> None:
    services = read_services() | {service.name: service}
    with atomic_file(services_dir() / "services.json") as path:
        path.write_text(json.dumps([asdict(entry) for entry in services.values()], indent=1))


@contextlib.contextmanager
def only_one() -> Iterator[None]:
    """Let one `up` or `down` work at a time."""
    import fcntl

    services_dir().mkdir(parents=True, exist_ok=True)
    with open(services_dir() / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def free_port(preferred: int | None) -> int:
    """Return `preferred` if nobody listens there, else any free port."""
    for port in (preferred, 0):
        if port is None:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return probe.getsockname()[1]
    raise StackError("This machine has no free port on 127.0.0.1.")


def wait_for(ready: Callable[[], bool], what: str, process: subprocess.Popen, log: Path) -> None:
    """Return when `ready()` holds; raise StackError when the process ends or the deadline passes."""
    deadline = time.monotonic() + START_DEADLINE_S
    while not ready():
        if process.poll() is not None:
            raise StackError(f"{what} ended with code {process.returncode} while starting; its log is {log}.")
        if time.monotonic() > deadline:
            raise StackError(f"{what} was not ready after {START_DEADLINE_S:.0f} s; its log is {log}.")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.2)


def answers(url: str) -> bool:
    """Tell whether a GET of `url` answers 200."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False


def environment() -> dict[str, str]:
    """Return the environment of every service and of the flow runs that the worker starts."""
    folder = services_dir()
    services = read_services()
    settings = {
        "SHAREVERSE_HOME": str(home()),
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "RAY_USAGE_STATS_ENABLED": "0",
        "TORCH_EXTENSIONS_DIR": str(folder / "torch_extensions"),
    }
    if "prefect" in services:
        settings["PREFECT_API_URL"] = services["prefect"].address + "/api"
    if "mlflow" in services:
        settings["MLFLOW_TRACKING_URI"] = services["mlflow"].address
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**os.environ, **settings, "PATH": path}


def launch(name: str, command: list[str], address: str, extra: dict[str, str] | None = None) -> subprocess.Popen:
    """Start a service in its own session, its output in services/<name>.log, and record it."""
    log = services_dir() / f"{name}.log"
    with open(log, "ab") as output:
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=environment() | (extra or {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    write_service(Service(name, process.pid, psutil.Process(process.pid).create_time(), address))
    return process


def port_of(service: Service | None) -> int | None:
    return int(service.address.rsplit(":", 1)[1]) if service and service.address else None


def start_prefect(old: Service | None) -> tuple[subprocess.Popen, Callable[[], bool]]:
    port = free_port(port_of(old))
    address = f"http://127.0.0.1:{port}"
    database = services_dir() / "prefect" / "prefect.db"
    database.parent.mkdir(parents=True, exist_ok=True)
    process = launch(
        "prefect",
        [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
        address,
        {
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{database}",
            "PREFECT_SERVER_UI_API_URL": f"{address}/api",
            "PREFECT_PLUGINS_ENABLED": "false",
        },
    )
    return process, lambda: answers(f"{address}/api/health")


def start_mlflow(old: Service | None) -> tuple[subprocess.Popen, Callable[[], bool]]:
    port = free_port(port_of(old))
    folder = services_dir() / "mlflow"
    folder.mkdir(parents=True, exist_ok=True)
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--serve-artifacts"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    return launch("mlflow", command, address), lambda: answers(f"{address}/health")


def start_worker() -> tuple[subprocess.Popen, Callable[[], bool]]:
    name = f"worker-{time.time_ns()}"
    command = [
        sys.executable,
        "-m",
        "prefect",
        "worker",
        "start",
        "--pool",
        "local",
        "--type",
        "process",
        "--name",
        name,
    ]
    process = launch("worker", command, read_services()["prefect"].address, {"PREFECT_PLUGINS_ENABLED": "false"})
    return process, lambda: worker_is_online(name)


def worker_is_online(name: str) -> bool:
    address = read_services()["prefect"].address
    request = urllib.request.Request(
        f"{address}/api/work_pools/local/workers/filter",
        data=json.dumps({}).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return any(w["name"] == name and w["status"] == "ONLINE" for w in json.load(response))
    except (urllib.error.URLError, OSError):
        return False


def prefect_command(*arguments: str) -> None:
    """Run a prefect command against the local server; raise StackError with its last line when it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", *arguments],
        cwd=REPOSITORY,
        env=environment() | {"PREFECT_PLUGINS_ENABLED": "false"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        output = (done.stdout + done.stderr).strip()
        raise StackError(f"`prefect {' '.join(arguments)}` failed with code {done.returncode}:\n{output[-2000:]}")


def write_dotenv() -> None:
    """Write `.env`: Prefect reads it in the repository's folder, so a fresh shell finds the services."""
    keys = (
        "SHAREVERSE_HOME",
        "PREFECT_HOME",
        "PREFECT_API_URL",
        "MLFLOW_TRACKING_URI",
        "PREFECT_SERVER_ANALYTICS_ENABLED",
    )
    settings = environment()
    with atomic_file(REPOSITORY / ".env") as path:
        path.write_text("".join(f"{key}={settings[key]}\n" for key in keys if key in settings))


def crash_abandoned_runs() -> int:
    """Mark flow runs crashed that a killed worker left running. Returns how many.

    Only called when this clone's worker is down: every run of the pool `local` was its child.
    """
    script = "from infra.stack import _crash_abandoned_runs as run; print(run())"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, env=environment() | {"PREFECT_PLUGINS_ENABLED": "false"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise StackError(f"Old flow runs could not be reconciled: {done.stderr.strip()[-1000:]}")
    return int(done.stdout.strip().splitlines()[-1])


def _crash_abandoned_runs() -> int:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
        WorkPoolFilter,
        WorkPoolFilterName,
    )
    from prefect.client.schemas.objects import StateType
    from prefect.states import Crashed

    alive = FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING, StateType.CANCELLING])
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=alive)),
            work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=["local"])),
        )
        for run in runs:
            client.set_flow_run_state(
                run.id, Crashed(message="The worker was gone; run the deployment again."), force=True
            )
        return len(runs)


def up() -> None:
    """Start what is not running; afterwards server, MLflow and worker answer and all deployments exist."""
    with only_one():
        recorded = read_services()
        running = {name for name, service in recorded.items() if service.process()}
        if not {"prefect", "mlflow"} <= running and "worker" in running:
            stop(recorded["worker"])  # it would go on with the address of a server that is gone
            running.discard("worker")
        starting = {}
        if "prefect" not in running:
            starting["prefect"] = start_prefect(recorded.get("prefect"))
        if "mlflow" not in running:
            starting["mlflow"] = start_mlflow(recorded.get("mlflow"))
        for name, (process, ready) in starting.items():
            wait_for(ready, name, process, services_dir() / f"{name}.log")
        write_dotenv()
        if "worker" in running:
            return
        for pool in POOLS:
            prefect_command("work-pool", "create", pool, "--type", "process", "--overwrite")
        crash_abandoned_runs()
        prefect_command("deploy", "--all")
        process, ready = start_worker()
        wait_for(ready, "worker", process, services_dir() / "worker.log")


def stop(service: Service) -> None:
    """End the service's process group: SIGTERM, and SIGKILL when the deadline passes."""
    process = service.process()
    if process is None:
        return
    children = process.children(recursive=True)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(service.pid, signal.SIGTERM)
    _, stubborn = psutil.wait_procs([process, *children], timeout=STOP_DEADLINE_S)
    for left in stubborn:
        with contextlib.suppress(psutil.NoSuchProcess):
            left.kill()
    psutil.wait_procs(stubborn, timeout=STOP_DEADLINE_S)


def down() -> None:
    """End exactly what `up` started, the worker first."""
    with only_one():
        services = read_services()
        for name in ("worker", "mlflow", "prefect"):
            if name in services:
                stop(services[name])


def status_lines() -> list[str]:
    """Return a line a service: name, state, address, pid."""
    services = read_services()
    lines = []
    for name in ("prefect", "mlflow", "worker"):
        service = services.get(name)
        if service is None:
            lines.append(f"{name} stopped - -")
        else:
            lines.append(f"{name} {'running' if service.process() else 'stopped'} {service.address} {service.pid}")
    return lines


def main() -> int:
    command = sys.argv[1] if len(sys.argv) == 2 else ""
    if command not in ("up", "down", "status"):
        print("usage: python -m infra.stack up | down | status", file=sys.stderr)
        return 2
    try:
        if command == "up":
            up()
        elif command == "down":
            down()
    except StackError as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(status_lines()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
