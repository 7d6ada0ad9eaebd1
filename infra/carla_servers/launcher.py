"""Launches one CARLA server, waits until it is ready, and ends everything that it started (trap 6: launches fail
silently)."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from infra.carla_servers.errors import CarlaServerError, NotReady
from infra.carla_servers.output import ServerOutput
from infra.carla_servers.ports import PortLease, PortLocksError, PortsError
from infra.carla_servers.readiness import Deadline, await_image, connect
from infra.process_guard import GuardedProcess

log = logging.getLogger(__name__)
LAUNCHES = 3
SOFTWARE_RENDERERS = ("llvmpipe", "lavapipe")
ROOT_REFUSED = "refusing to run with the root privileges"
EXECUTABLE, ADAPTERS = "SHAREVERSE_CARLA_EXECUTABLE", "SHAREVERSE_CARLA_ADAPTERS"
"""Variables of a machine's environment: the path of its CarlaUE4.sh; adapter numbers of its GPUs, "0:0,1:2" where
adapter 1 is none."""
NVIDIA_SMI_TIMEOUT_S = 30.0
NOT_EXECUTABLE = (errno.ENOENT, errno.EACCES, errno.ENOEXEC, errno.ENOTDIR, errno.EISDIR, errno.ELOOP)
"""Errors of exec that another launch would not cure, unlike a lack of memory or processes."""


@dataclass(frozen=True)
class SimulatorSpec:
    """Which CARLA to launch."""

    kind: str = "embedded"
    """"embedded" or "carla"."""
    executable: str = ""
    """Path of CarlaUE4.sh, for kind "carla"; empty: what the machine's variable EXECUTABLE says."""
    options: tuple[str, ...] = ()
    maps_dir: str = ""
    """Folder whose .xodr files are towns too, for kind "embedded"."""
    ready_s: float = 180.0
    """Limit for a launch to become ready."""

    def command(self, port: int, gpu: int | None) -> list[str]:
        """Return the command line. CarlaServerError for what cannot be launched."""
        common = [f"-carla-rpc-port={port}", "-RenderOffScreen", "-nosound", "-quality-level=Epic"]
        if self.kind == "embedded":
            maps = ["--maps", self.maps_dir] if self.maps_dir else []
            return [sys.executable, "-m", "infra.minicarla", *common, *maps, *self.options]
        if self.kind != "carla":
            raise CarlaServerError(f"the simulator {self.kind!r} is unknown: it is 'embedded' or 'carla'.")
        executable = self.executable or os.environ.get(EXECUTABLE, "")
        if not shutil.which(executable):
            raise CarlaServerError(
                f"the CARLA executable {executable!r} does not exist or cannot be executed: "
                "set carla_executable to CarlaUE4.sh."
            )
        adapter = [f"-graphicsadapter={adapter_of(gpu)}"] if gpu is not None else []
        return [executable, *common, *adapter, *self.options]


def adapter_of(gpu: int) -> int:
    """Return the adapter number of this machine's GPU: its own number, or what the variable ADAPTERS maps it to.

    CarlaServerError for a map that cannot be read.
    """
    text = os.environ.get(ADAPTERS, "")
    try:
        pairs = [pair.split(":") for pair in text.split(",") if pair.strip()]
        adapters = {int(number): int(adapter) for number, adapter in pairs}
    except ValueError as error:
        raise CarlaServerError(f"{ADAPTERS} is {text!r}: give pairs GPU:ADAPTER, as in '0:0,1:2'.") from error
    return adapters.get(gpu, gpu)


class CarlaServer:
    """One server with everything that it starts, its ports and its client. It ends with this process."""

    def __init__(self, spec: SimulatorSpec, log_dir: Path, name: str, gpu: int | None = None) -> None:
        self.spec, self.log, self.name, self.gpu = spec, Path(log_dir) / f"{name}.log", name, gpu
        self.lease: PortLease | None = None
        self.process: GuardedProcess | None = None
        self.output: ServerOutput | None = None
        self.drainer: threading.Thread | None = None
        self.client: Any = None
        self.should_run = False

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process and self.alive() else None

    @property
    def port(self) -> int | None:
        return self.lease.port if self.lease else None

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self, launches: int = LAUNCHES) -> CarlaServer:
        """Launch and wait until the server renders; a failed launch is tried again (one in ten fails, trap 6: launches
        fail silently).

        Each failure is logged. NotReady with all reasons when every launch failed; later ones may work. Any other
        CarlaServerError (a missing executable, the wrong version, software rendering, root refused) is raised at once,
        because no launch would help.
        """
        reasons: list[str] = []
        self.should_run = True
        while self.should_run and len(reasons) < launches:
            try:
                self.launch()
                self.await_ready()
                return self
            except NotReady as failure:
                reasons.append(str(failure))
                log.warning("%s: launch %d of %d failed: %s", self.name, len(reasons), launches, failure)
                self.end()
            except BaseException as error:
                if isinstance(error, CarlaServerError):
                    log.error("%s cannot be launched: %s", self.name, error)
                self.end()
                raise
        if len(reasons) == 1:
            raise NotReady(f"{self.name} did not start: {reasons[0]} Its log is {self.log}.")
        listed = " ".join(f"({number}) {reason}" for number, reason in enumerate(reasons, 1))
        raise NotReady(f"{self.name} did not start in {len(reasons)} launches: {listed} Its log is {self.log}.")

    def launch(self) -> None:
        """Start the process. NotReady or CarlaServerError when it cannot be."""
        self.process = self.output = self.drainer = None
        try:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            self.output = ServerOutput(self.log, (*SOFTWARE_RENDERERS, ROOT_REFUSED))
        except OSError as error:
            raise CarlaServerError(f"the log {self.log} cannot be written: {error.strerror}.") from error
        try:
            self.lease = PortLease()
            command = self.spec.command(self.lease.port, self.gpu)
            self.process = GuardedProcess(command)
        except PortLocksError as error:
            raise CarlaServerError(str(error)) from error
        except PortsError as error:
            raise NotReady(str(error)) from error
        except OSError as error:
            kind = CarlaServerError if error.errno in NOT_EXECUTABLE else NotReady
            raise kind(f"{error.filename or 'its process'} could not be started: {error.strerror}.") from error
        self.drainer = threading.Thread(target=self.output.drain, args=(self.process.output,), daemon=True)
        self.drainer.start()

    def await_ready(self) -> None:
        """Wait for the right version, a map, a tick and a camera's image of it, all before one deadline."""
        if self.process is None or self.lease is None:
            raise NotReady("it was stopped while it started.")
        deadline = Deadline(self.spec.ready_s)
        try:
            self.client = connect(self.process, self.lease.port, deadline)
            await_image(self.process, self.lease.port, deadline)
        except NotReady as failure:
            raise self.explain_failure(failure) from failure
        self.check_renderer()
        self.check_gpu()

    def explain_failure(self, failure: NotReady) -> CarlaServerError:
        """Return the error to raise for a failed launch: what became of the process, and its last line."""
        assert self.process is not None
        assert self.output is not None
        code = self.process.wait(1.0)  # it may just be ending
        if self.drainer and code is not None:
            self.drainer.join(2.0)
        if ROOT_REFUSED in self.output.seen:
            return CarlaServerError("CARLA refuses to run as root: start the worker as another user.")
        what = str(failure) if code is None else f"the server ended with code {code}"
        words = self.output.last_line.rstrip(".") or "it wrote nothing (no Vulkan driver?)"
        root = " CARLA refuses to run as root, and this is root." if self.may_refuse_root() else ""
        return NotReady(f"{what}: {words}.{root}")

    def may_refuse_root(self) -> bool:
        return self.spec.kind == "carla" and os.geteuid() == 0

    def check_renderer(self) -> None:
        """Raise CarlaServerError when the real CARLA said that it renders in software (trap 8: GPUs are
        misnumbered)."""
        assert self.output is not None
        for name in SOFTWARE_RENDERERS:
            if self.spec.kind == "carla" and name in self.output.seen:
                raise CarlaServerError(f"CARLA renders in software ({name}): install the GPU's Vulkan driver.")

    def check_gpu(self) -> None:
        """Raise CarlaServerError when a server runs on another GPU than it was given (trap 8: GPUs are misnumbered).

        In a container the driver may report other pids, or none. The GPU is unknown then, and a warning says so.
        """
        if self.spec.kind != "carla" or self.gpu is None or not shutil.which("nvidia-smi"):
            return
        assert self.process is not None
        family = self.process.tree()
        used = {gpu for gpu, pid in processes_of_gpus() if pid in family}
        if not used:
            log.warning("%s: nvidia-smi does not tell on which GPU it runs; it was given %d.", self.name, self.gpu)
        elif self.gpu not in used:
            raise CarlaServerError(
                f"{self.name} runs on GPU {min(used)} instead of {self.gpu}: check -graphicsadapter numbering, "
                f"and set {ADAPTERS} on that machine."
            )

    def stop(self) -> None:
        """End everything that the server started and give the ports back.

        It may be called again, and from another thread while `start` hangs, which then fails.
        """
        self.should_run = False
        self.end()

    def end(self) -> None:
        self.client = None
        if self.process is not None:
            self.process.stop()
        if self.drainer is not None:
            self.drainer.join(5.0)
        elif self.output is not None:
            self.output.close()
        if self.lease is not None:
            self.lease.release()
        self.lease = None

    def __enter__(self) -> CarlaServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def processes_of_gpus() -> list[tuple[int, int]]:
    """Return (GPU, pid) of the processes on this machine's GPUs. NotReady when the driver does not answer."""
    command = ["nvidia-smi", "pmon", "-c", "1"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, timeout=NVIDIA_SMI_TIMEOUT_S).stdout
    except subprocess.TimeoutExpired as error:
        raise NotReady(
            f"nvidia-smi did not answer in {NVIDIA_SMI_TIMEOUT_S:g} s: is the GPU's driver healthy?"
        ) from error
    rows = [line.split()[:2] for line in output.splitlines()]
    return [(int(row[0]), int(row[1])) for row in rows if len(row) == 2 and row[0].isdigit() and row[1].isdigit()]
