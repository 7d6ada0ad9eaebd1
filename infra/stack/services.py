"""Services as processes: started, recorded, found again, ended.

A service counts as running only while the process with the recorded pid *and* start time lives. A service that is not
in the record, because the record was lost or `up` was killed, is found by the marks in its environment.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from infra.installation import CODE, in_clone, shell_command
from infra.private_files import private_folder, write_private
from infra.reading import read_json
from infra.stack.log_size import rotate
from infra.storage import canonical_json, home

SERVICE_NAMES = ("prefect", "mlflow", "worker")
START_DEADLINE_S = 300.0
"""A first start creates the databases, which took two minutes on two busy cores."""
STOP_DEADLINE_S = 20.0
NAME_MARK = "SHAREVERSE_SERVICE"
ADDRESS_MARK = "SHAREVERSE_SERVICE_ADDRESS"
FLOW_MARK = "PREFECT__FLOW_RUN_ID"
"""Prefect's variable in a flow run's processes, which also inherit the worker's marks."""
RESTART = f"run `{shell_command('down')}`, which ends the worker and what runs in it, then `{shell_command('up')}`"
"""What to do about a service that cannot be used as it is."""


class StackError(RuntimeError):
    """A local service did not start or stop."""


@dataclass(frozen=True)
class Service:
    """A process that `up` started. `started` is its start time by the kernel: a pid alone may be another's by now."""

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


def log_file(name: str) -> Path:
    """Return a service's log."""
    return services_dir() / f"{name}.log"


def port_of(address: str) -> int:
    """Return the port of an address such as http://127.0.0.1:4200."""
    return int(address.rsplit(":", 1)[1])


def parse_service(entry: object) -> Service:
    """Return the service that an entry of services.json describes; StackError when it describes none."""
    if isinstance(entry, dict) and set(entry) == {"name", "pid", "started", "address"}:
        name, pid, started, address = (entry[key] for key in ("name", "pid", "started", "address"))
        host, _, port = address.rpartition(":") if isinstance(address, str) else ("", "", "")
        is_process = type(pid) is int and 1 < pid < 2**31 and type(started) in (int, float) and 0 <= started < 2**53
        is_local = host == "http://127.0.0.1" and port.isdecimal() and 0 < int(port[:6]) < 2**16
        if name in SERVICE_NAMES and is_process and is_local:
            return Service(name, pid, started, address)
    raise StackError(f"services.json describes no service with {str(entry)[:200]!r}")


def recorded_services() -> dict[str, Service]:
    """Return the services of services.json by name. A damaged file is renamed, with a sentence on stderr."""
    record = services_dir() / "services.json"
    if not os.path.lexists(record):
        return {}
    try:
        entries = read_json(record, "it is put aside", kind=list, error=StackError)
        return {service.name: service for service in map(parse_service, entries)}
    except StackError as error:
        aside = record.with_name(f"services.json.damaged-{time.time_ns()}")
        os.replace(record, aside)
        print(f"{error}. It now lies at {aside}; services that run are found by their environment.", file=sys.stderr)
        return {}


def marked_processes() -> Iterator[tuple[psutil.Process, dict[str, str]]]:
    """Yield this user's processes that have the marks of this home's services, each with its environment."""
    for process in psutil.process_iter():
        try:
            if process.uids().real != os.getuid():
                continue
            marks = process.environ()
        except (psutil.Error, OSError):
            continue  # ended meanwhile, or not ours to look at
        if marks.get(NAME_MARK) in SERVICE_NAMES and marks.get("SHAREVERSE_HOME") == str(home()):
            yield process, marks


def find_services() -> list[Service]:
    """Return this home's services among the processes, by the marks that `launch` gave them."""
    found = []
    for process, marks in marked_processes():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            if FLOW_MARK not in marks and os.getsid(process.pid) == process.pid:
                address = marks.get(ADDRESS_MARK, "")
                found.append(Service(marks[NAME_MARK], process.pid, process.create_time(), address))
    return [service for service in found if service.process()]


def end_orphaned_flows() -> None:
    """End flow runs whose worker is gone: Prefect counts them as crashed, and they would hinder the next ones.

    Call it only when this home's worker is down. Flows get SIGTERM first, so that they end their own helpers.
    """
    orphans = [process for process, marks in marked_processes() if FLOW_MARK in marks]
    pids = {process.pid for process in orphans}
    for process in orphans:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.ppid() not in pids:
                process.terminate()
    _, stubborn = psutil.wait_procs(orphans, timeout=STOP_DEADLINE_S)
    kill(stubborn)


def kill(processes: list[psutil.Process]) -> None:
    """Kill processes and wait until they are gone."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=STOP_DEADLINE_S)


def read_services() -> dict[str, Service]:
    """Return the services by name, running or not: those of the record, and those that run without being in it."""
    services = recorded_services()
    lost = [service for service in find_services() if service.pid not in {known.pid for known in services.values()}]
    for service in lost:
        known = services.get(service.name)
        if known is None or not known.process():
            services[service.name] = service
    return services


def write_service(service: Service) -> None:
    """Put a service into the record."""
    private_folder(services_dir())
    services = recorded_services() | {service.name: service}
    entries = [asdict(entry) for entry in services.values()]
    write_private(services_dir() / "services.json", canonical_json(entries) + "\n")


@contextlib.contextmanager
def stack_lock() -> Iterator[None]:
    """Hold the lock that lets only one `up` or `down` work at a time. StackError on a file system without locks."""
    private_folder(services_dir())
    with open(os.open(services_dir() / "lock", os.O_WRONLY | os.O_CREAT, 0o600), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            raise StackError(
                f"{services_dir()} is on a file system without locks ({error.strerror}): set SHAREVERSE_HOME to a "
                "folder on a local disk."
            ) from error
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


def launch(name: str, command: list[str], address: str, environment: dict[str, str]) -> Service:
    """Start a service in its own session, its output in services/<name>.log, and record it.

    Pass secrets in `environment`: every user of the machine can read a command line.
    """
    log = log_file(name)
    with open(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab") as output:
        rotate(log)
        process = subprocess.Popen(
            command,
            cwd=CODE if in_clone() else services_dir(),  # what a service drops never lies beside installed packages
            env=environment | {NAME_MARK: name, ADDRESS_MARK: address},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            umask=0o077,
        )
    service = Service(name, process.pid, psutil.Process(process.pid).create_time(), address)
    write_service(service)
    return service


def wait_for(service: Service, ready: Callable[[], bool]) -> None:
    """Wait until `ready()` holds. StackError when the process ends or the deadline passes."""
    deadline = time.monotonic() + START_DEADLINE_S
    while not ready():
        process = service.process()
        if process is None:
            raise StackError(f"{service.name} ended while starting; its log is {log_file(service.name)}.")
        if time.monotonic() > deadline:
            raise StackError(
                f"{service.name} does not answer after {START_DEADLINE_S:.0f} s; its log is {log_file(service.name)}. "
                f"`{shell_command('down')}` ends it."
            )
        with contextlib.suppress(psutil.TimeoutExpired):
            process.wait(timeout=0.2)


def stop(service: Service) -> None:
    """End the service's process group: SIGTERM, and SIGKILL when the deadline passes."""
    process = service.process()
    if process is None:
        return
    try:
        children = process.children(recursive=True)
    except psutil.NoSuchProcess:
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(service.pid, signal.SIGTERM)
    _, stubborn = psutil.wait_procs([process, *children], timeout=STOP_DEADLINE_S)
    kill(stubborn)
