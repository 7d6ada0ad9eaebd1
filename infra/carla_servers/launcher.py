"""Launches one CARLA server and says when it is ready: traps 5 to 8."""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from infra.carla_servers.ports import PortLease

WORKER_THREADS = 28
"""Of the carla client: more than cameras, or callbacks starve the world's state (trap 2)."""
LAUNCHES = 3
LOG_BYTES = 2_000_000
SOFTWARE_RENDERERS = ("llvmpipe", "lavapipe")


class CarlaServerError(RuntimeError):
    """A CARLA server that cannot be started or used."""


@dataclass(frozen=True)
class SimulatorSpec:
    """Which CARLA to launch."""

    kind: str = "embedded"
    """"embedded" or "carla"."""
    executable: str = ""
    """CarlaUE4.sh of the real one."""
    options: tuple[str, ...] = ()
    maps_dir: str = ""
    """Embedded only: every .xodr file there is a town too."""
    ready_s: float = 180.0

    def command(self, port: int, gpu: int | None) -> list[str]:
        """Return the command line. CarlaServerError for what cannot be launched."""
        common = [f"-carla-rpc-port={port}", "-RenderOffScreen", "-nosound", "-quality-level=Epic"]
        if self.kind == "embedded":
            maps = ["--maps", self.maps_dir] if self.maps_dir else []
            return [sys.executable, "-m", "infra.minicarla", *common, *maps, *self.options]
        if self.kind != "carla":
            raise CarlaServerError(f"the simulator {self.kind!r} is unknown: it is 'embedded' or 'carla'.")
        if not shutil.which(self.executable):
            raise CarlaServerError(
                f"the CARLA executable {self.executable!r} does not exist: set carla_executable to CarlaUE4.sh."
            )
        if os.geteuid() == 0:
            raise CarlaServerError("CARLA refuses to run as root: start the worker as another user.")
        adapter = [f"-graphicsadapter={gpu}"] if gpu is not None else []
        return [self.executable, *common, *adapter, *self.options]


def drain(pipe: IO[bytes], path: Path) -> None:
    """Write a process's output to a file of bounded size: a full pipe would block the server."""
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=1)
    handler.setFormatter(logging.Formatter("%(message)s"))
    for line in pipe:
        handler.emit(logging.makeLogRecord({"msg": "%s", "args": (line.decode(errors="replace").rstrip(),)}))
    handler.close()


class CarlaServer:
    """One server process of ours, its ports and its client. Start it from a main thread: it dies with that thread."""

    def __init__(self, spec: SimulatorSpec, log_dir: Path, name: str, gpu: int | None = None) -> None:
        self.spec, self.log, self.name, self.gpu = spec, Path(log_dir) / f"{name}.log", name, gpu
        self.lease: PortLease | None = None
        self.process: subprocess.Popen | None = None
        self.drainer: threading.Thread | None = None
        self.client: Any = None

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process else None

    @property
    def port(self) -> int | None:
        return self.lease.port if self.lease else None

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self, launches: int = LAUNCHES) -> CarlaServer:
        """Launch and wait until the server renders; try again after a failed launch (one in ten fails, trap 6).

        NotReady when all launches failed; any other CarlaServerError when no launch would help.
        """
        self.log.parent.mkdir(parents=True, exist_ok=True)
        reasons = []
        for _ in range(launches):
            try:
                self.launch()
                self.await_ready()
                return self
            except CarlaServerError as error:
                self.stop()
                if not isinstance(error, NotReady):
                    raise
                reasons.append(str(error))
        raise NotReady(f"{self.name} did not start in {launches} launches: {reasons[-1]} Its log is {self.log}.")

    def launch(self) -> None:
        self.lease = PortLease()
        command = self.spec.command(self.lease.port, self.gpu)
        guard = [sys.executable, "-m", "infra.carla_servers.guard", str(os.getpid())]
        self.process = subprocess.Popen(
            [*guard, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.drainer = threading.Thread(target=drain, args=(self.process.stdout, self.log), daemon=True)
        self.drainer.start()

    def await_ready(self) -> None:
        """Ready means: the right version, a map, a tick and a camera's image of it, before the deadline."""
        import carla

        assert self.process is not None
        assert self.lease is not None
        deadline = time.monotonic() + self.spec.ready_s
        while True:
            if not self.alive():
                raise NotReady(f"the server ended with code {self.process.returncode}: {self.last_line()}")
            if time.monotonic() > deadline:
                raise NotReady(f"it was not ready after {self.spec.ready_s:g} s.")
            try:
                # a client that found nobody listening never connects again: each attempt has its own
                socket.create_connection(("127.0.0.1", self.lease.port), 5.0).close()
                self.client = carla.Client("127.0.0.1", self.lease.port, worker_threads=WORKER_THREADS)
                self.client.set_timeout(5.0)
                version = self.client.get_server_version()
                break
            except (OSError, RuntimeError):  # not listening yet
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(0.1)
        mine = self.client.get_client_version()
        if version != mine:
            raise CarlaServerError(
                f"the server is CARLA {version} and the client {mine}: install `carla=={version}` or that server."
            )
        try:
            self.client.set_timeout(max(10.0, deadline - time.monotonic()))
            probe(self.client, max(10.0, deadline - time.monotonic()))
        except (RuntimeError, queue.Empty) as error:
            raise NotReady(f"it answered but did not render: {error!r}") from error
        self.refuse_software_rendering()
        self.check_gpu()

    def last_line(self) -> str:
        if self.drainer:
            self.drainer.join(2.0)
        lines = self.log.read_text(errors="replace").strip().splitlines() if self.log.exists() else []
        return lines[-1] if lines else "it wrote nothing (no Vulkan driver?)."

    def refuse_software_rendering(self) -> None:
        text = self.log.read_text(errors="replace").lower() if self.log.exists() else ""
        for name in SOFTWARE_RENDERERS:
            if self.spec.kind == "carla" and name in text:
                raise CarlaServerError(f"CARLA renders in software ({name}): install the GPU's Vulkan driver.")

    def check_gpu(self) -> None:
        """Raise CarlaServerError when a server runs on another GPU than it was given (trap 8)."""
        if self.spec.kind != "carla" or self.gpu is None or not shutil.which("nvidia-smi"):
            return
        query = ["nvidia-smi", f"--id={self.gpu}", "--query-compute-apps=pid", "--format=csv,noheader"]
        graphics = subprocess.run(
            ["nvidia-smi", "pmon", "-c", "1", "-i", str(self.gpu)], capture_output=True, text=True
        )
        compute = subprocess.run(query, capture_output=True, text=True)
        import psutil

        assert self.pid is not None
        family = {self.pid, *(child.pid for child in psutil.Process(self.pid).children(recursive=True))}
        seen = {int(word) for word in (graphics.stdout + compute.stdout).split() if word.isdigit()}
        if not family & seen:
            raise CarlaServerError(f"{self.name} does not run on GPU {self.gpu}: check -graphicsadapter numbering.")

    def stop(self) -> None:
        """End the server's process group and give the ports back."""
        self.client = None
        if self.process is not None:
            for number, patience in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.process.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(patience)
                    break
            if self.drainer:
                self.drainer.join(5.0)
            if self.process.stdout:
                self.process.stdout.close()
        if self.lease is not None:
            self.lease.release()
        self.process = self.lease = self.drainer = None

    def __enter__(self) -> CarlaServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class NotReady(CarlaServerError):
    """A launch that failed; the next may work."""


def probe(client: Any, patience_s: float) -> None:
    """Tick once and wait for a camera's image of that tick, then leave the world as it was."""
    import carla

    world = client.get_world()
    assert world.get_map().name
    settings = world.get_settings()
    original = world.get_settings()
    settings.synchronous_mode, settings.fixed_delta_seconds = True, 0.05
    world.apply_settings(settings)
    blueprint = world.get_blueprint_library().find("sensor.camera.rgb")
    for name in ("image_size_x", "image_size_y"):
        blueprint.set_attribute(name, "16")
    camera = world.spawn_actor(blueprint, carla.Transform(carla.Location(z=50.0)))
    frames: queue.Queue = queue.Queue()
    try:
        camera.listen(lambda image: frames.put(image.frame))
        wanted = world.tick(patience_s)
        while frames.get(timeout=patience_s) < wanted:
            pass
    finally:
        camera.stop()
        camera.destroy()
        world.apply_settings(original)
