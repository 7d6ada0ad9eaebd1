"""Ray: a local one for the demo, or the cluster that `RAY_ADDRESS` names.

A local Ray listens on 127.0.0.1 alone, asks for a token that only its user can read, and keeps its sockets and logs in
a folder that only its user can enter.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from infra.private_files import read_or_create_secret
from infra.ray_daemons import daemons_of, end_daemons_together
from infra.reading import one_line
from infra.storage import home

CONNECT_TIMEOUT_S = 10.0
MAX_FOLDER_BYTES = 40
"""Longest path of Ray's folder: Ray appends about 65 bytes, and a Unix socket's path has 107 at most."""
ATTEMPTS = 2
"""Attempts at starting a local Ray: on a busy machine its processes may miss Ray's own deadline."""


class RayClusterError(RuntimeError):
    """Ray could not be started or reached."""


def check_reachable(address: str) -> None:
    """Raise RayClusterError unless something listens at (ray://)host:port. Ray itself would wait for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise RayClusterError(f"RAY_ADDRESS is {address!r}: give host:port or ray://host:port, or unset it.")
    try:
        socket.create_connection((host, int(port)), CONNECT_TIMEOUT_S).close()
    except (OSError, UnicodeError) as error:
        raise RayClusterError(
            f"no Ray listens at {address} ({error}): check RAY_ADDRESS; unset, a local Ray is used."
        ) from error


def temporary_folder() -> Path:
    """Return the folder for a local Ray's sockets and logs, made inside one that its owner alone can enter.

    Ray makes its own folders accessible to everybody. RayClusterError when the folder cannot be made or its path is
    too long.
    """
    outer = Path(tempfile.gettempdir()) / f"shareverse-{os.getuid()}"
    folder = outer / "ray"
    advice = "set TMPDIR to another folder, with a short path."
    if len(os.fsencode(folder)) > MAX_FOLDER_BYTES:
        raise RayClusterError(f"{folder} is too long a path for Ray's sockets: {advice}")
    try:
        with contextlib.suppress(FileExistsError):
            outer.mkdir(mode=0o700)
        status = outer.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
            raise RayClusterError(f"{outer} is not a folder of yours, and Ray's sockets would lie in it: {advice}")
        outer.chmod(0o700)
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise RayClusterError(f"Ray cannot keep its sockets in {folder} ({error.strerror}): {advice}") from error
    return folder


def secure_local_ray() -> None:
    """Set the environment so that a local Ray listens on 127.0.0.1 alone and asks for this home's token.

    Call it before Ray is imported. RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER allows clusters on Windows and macOS; switched
    off, Ray keeps to the loopback on Linux too.
    """
    token_file = home() / "services" / "ray_token"
    read_or_create_secret(token_file, secrets.token_hex(32))
    os.environ.pop("RAY_AUTH_TOKEN", None)
    os.environ |= {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file),
    }


def end_failed_start(ray: Any, before: set[psutil.Process]) -> None:
    """End what a failed start of Ray left: child processes that run Ray's programs and are not in `before`."""
    ray.shutdown()
    ray_folder = str(Path(ray.__file__).parent)
    killed = []
    for child in set(psutil.Process().children(recursive=True)) - before:
        with contextlib.suppress(psutil.NoSuchProcess):
            if any(ray_folder in word for word in child.cmdline()):
                child.kill()
                killed.append(child)
    psutil.wait_procs(killed, timeout=CONNECT_TIMEOUT_S)


def start_local(ray: Any, num_cpus: int | None) -> None:
    """Start a Ray with `num_cpus` CPU slots on this machine. RayClusterError when it fails to start twice."""
    folder = temporary_folder()
    for attempt in range(1, ATTEMPTS + 1):
        before = set(psutil.Process().children(recursive=True))
        try:
            ray.init(
                num_cpus=num_cpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
                object_store_memory=256 * 1024**2,
                _temp_dir=str(folder),
            )
        except Exception as error:  # Ray raises a bare Exception when its processes take too long
            end_failed_start(ray, before)
            if attempt == ATTEMPTS:
                raise RayClusterError(
                    f"Ray did not start on this machine, tried {ATTEMPTS} times ({one_line(error)}): its logs are in "
                    f"{folder}/session_latest/logs."
                ) from error
        else:
            break
    address = ray.util.get_node_ip_address()
    if address != "127.0.0.1":
        ray.shutdown()
        raise RayClusterError(
            f"Ray listens on {address} instead of 127.0.0.1, because it was imported before: "
            "set RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 in the environment of the program."
        )


def join_cluster(ray: Any, address: str) -> None:
    """Connect to the cluster at `address`. RayClusterError when that fails."""
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except Exception as error:  # Ray raises a bare Exception when a node takes too long
        ray.shutdown()
        raise RayClusterError(
            f"Ray at {address} cannot be joined ({one_line(error)}): check RAY_ADDRESS and, where the cluster asks for "
            "a token, RAY_AUTH_MODE and RAY_AUTH_TOKEN_PATH; with RAY_ADDRESS unset, a local Ray is used."
        ) from error


@contextlib.contextmanager
def ray_cluster(num_cpus: int | None = None) -> Iterator[Any]:
    """Yield the `ray` module, connected to `RAY_ADDRESS` where set, else to a local Ray that ends with the block.

    num_cpus: CPU slots of a local Ray. `ray.init` replaces Prefect's SIGTERM handler; it is restored, so that a
    cancelled flow still runs its `finally` blocks. RayClusterError when Ray cannot be started or reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's default of 15 would let everything else go first
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        secure_local_ray()
    elif address != "auto":
        check_reachable(address)
    import ray

    handler = signal.getsignal(signal.SIGTERM)
    try:
        if address:
            join_cluster(ray, address)
        else:
            start_local(ray, num_cpus)
    finally:
        with contextlib.suppress(ValueError):  # not the main thread: there is no handler to put back
            signal.signal(signal.SIGTERM, handler)
    try:
        with end_daemons_together(daemons_of(ray)):
            yield ray
    finally:
        ray.shutdown()
