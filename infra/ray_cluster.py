"""Ray: a local one for the demo, or the cluster that `RAY_ADDRESS` names."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from typing import Any

from infra.ray_daemons import daemons_of, ended_together

CONNECT_S = 10.0


class RayClusterError(RuntimeError):
    """Ray could not be started or reached."""


def check_reachable(address: str) -> None:
    """Raise RayClusterError unless something listens at (ray://)host:port: Ray itself would wait for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise RayClusterError(f"RAY_ADDRESS is {address!r}: give host:port or ray://host:port, or unset it.")
    try:
        socket.create_connection((host, int(port)), CONNECT_S).close()
    except OSError as error:
        raise RayClusterError(
            f"no Ray listens at {address} ({error}): check RAY_ADDRESS; unset, a local Ray is used."
        ) from error


@contextlib.contextmanager
def ray_cluster(num_cpus: int | None = None) -> Iterator[Any]:
    """Yield the `ray` module, connected: to `RAY_ADDRESS` where set, else to a Ray started here and ended afterwards.

    `num_cpus` are the slots of a local Ray. `ray.init` replaces Prefect's SIGTERM handler; it is put back, so that a
    cancelled flow still runs its `finally` blocks.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's own is 15: simulators would yield to everything
    import ray

    address = os.environ.get("RAY_ADDRESS") or None
    if address and address != "auto":
        check_reachable(address)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        if address:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        else:
            ray.init(
                num_cpus=num_cpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
                object_store_memory=256 * 1024**2,
                _temp_dir=tempfile.gettempdir() + f"/ray-{os.getuid()}",
            )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise RayClusterError(
            f"Ray at {address or 'this machine'} did not start: {error}. Check RAY_ADDRESS; unset, a local Ray is used."
        ) from error
    finally:
        with contextlib.suppress(ValueError):  # not the main thread: there is no handler to put back
            signal.signal(signal.SIGTERM, handler)
    try:
        with ended_together(daemons_of(ray)):
            yield ray
    finally:
        ray.shutdown()
