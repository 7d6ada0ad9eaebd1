"""The Ray actor that owns one CARLA server and records on it."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

from infra.actor_pool import Answer, PoolActor, Usage
from infra.carla_servers import CarlaServer, CarlaServerError, NotReady, SimulatorSpec
from infra.carla_servers.memory import gpu_memory_of, memory_of
from infra.reading import one_line
from infra.storage import StorageError, disk_fault
from tasks.planning.rows import PlannedRecording
from tasks.recording.errors import GateError, RecordingError, ServerFault
from tasks.recording.placement import assigned_gpu, with_threads
from tasks.recording.recorder import Recorder
from tasks.recording.rig import Rig, open_world

ANSWER_TIMEOUT_S = 5.0
"""Limit for the answer of a server that is asked whether it still works."""
GPU_MEMORY_EVERY_S = 60.0
"""How often the driver is asked for the video memory, which takes it up to a second."""


class RecorderActor(PoolActor):
    """Owns one CARLA server. GPU, ports and executable are found on the node where it is placed.

    After a fault the driver replaces the whole process, because a client hangs in its own clean-up when its server is
    dead or confused (trap 5: ticks can hang).
    """

    def __init__(self, spec: SimulatorSpec, dataset_dir: str, name: str) -> None:
        self.dataset_dir = Path(dataset_dir)
        self.server = CarlaServer(spec, self.dataset_dir / "logs", name)
        self.recorder: Recorder | None = None
        self.episode: tuple = ()
        """What the current recorder was made for: town, size of a view, ground truth, length of a tick."""
        self.stopping = False
        self.gpu_memory: int | None = None
        self.gpu_memory_due = 0.0

    def placed(self) -> str:
        """Learn what Ray gave this actor on its node; return the node's id."""
        self.server.spec, self.server.gpu = with_threads(self.server.spec), assigned_gpu(self.server.spec)
        return super().placed()

    def start(self) -> Answer:
        """Launch the server, once."""
        try:
            self.server.start(launches=1)
        except NotReady as error:
            return "unready", str(error)
        except CarlaServerError as error:
            fault = self.disk_fault(error.__cause__)
            return ("fatal", str(fault)) if fault else ("unusable", str(error))
        except (OSError, RuntimeError) as error:
            fault = self.disk_fault(error)
            return ("fatal", str(fault)) if fault else ("unready", one_line(error))
        threading.Thread(target=self.exit_with_server, daemon=True).start()
        return "ready", ""

    def work(self, recording: PlannedRecording) -> Answer:
        """Make a recording on the running server. "done" comes with why a quality gate rejects it, if one does, and
        with the memory that the server and this process hold."""
        kind, value = self.attempt(recording)
        return (kind, value, self.usage()) if kind == "done" else (kind, value)

    def attempt(self, recording: PlannedRecording) -> tuple[str, str]:
        """Make a recording; return how that ended and why."""
        try:
            self.recorder_for(recording).record(recording, self.dataset_dir)
        except GateError as error:
            return "done", str(error)
        except StorageError as error:
            return "fatal", str(error)
        except ServerFault as error:
            return "actor", str(error)
        except RecordingError as error:
            return "fault", str(error)
        except OSError as error:
            fault = self.disk_fault(error)
            return ("fatal", str(fault)) if fault else ("fault", one_line(error))
        except RuntimeError as error:  # the carla client's only class of errors
            return "fault" if self.is_answering() and "time-out" not in str(error) else "actor", one_line(error)
        return "done", ""

    def usage(self) -> Usage:
        """Return the memory that the server, its scripts and this process, the client, hold."""
        pids = {os.getpid(), *(self.server.process.tree() if self.server.process else ())}
        if self.server.gpu is not None and time.monotonic() >= self.gpu_memory_due:
            self.gpu_memory = gpu_memory_of(pids)
            self.gpu_memory_due = time.monotonic() + GPU_MEMORY_EVERY_S
        return Usage(memory_of(pids), self.gpu_memory)

    def stop(self) -> None:
        """End the server. Another call may hang meanwhile, so the client is not used."""
        self.stopping = True
        self.server.stop()

    def close(self) -> None:
        """End the server of an actor in a process that lives on: sensors that outlive their server abort it later."""
        try:
            if self.recorder is not None and self.is_answering():
                self.recorder.rig.destroy()
        finally:
            self.recorder = None
            self.stop()

    def disk_fault(self, error: BaseException | None) -> StorageError | None:
        return disk_fault(error, self.dataset_dir) if isinstance(error, OSError) else None

    def is_answering(self) -> bool:
        """Tell whether the server still answers."""
        try:
            self.server.client.set_timeout(ANSWER_TIMEOUT_S)
            self.server.client.get_server_version()
        except RuntimeError:
            return False
        return True

    def recorder_for(self, recording: PlannedRecording) -> Recorder:
        """Return a recorder in the recording's town: the current one, or one with a new episode and a new rig."""
        episode = (recording.town, recording.view_width, recording.view_height, recording.record_ground_truth,
                   recording.fixed_delta_s)  # fmt: skip
        if self.recorder is not None and self.episode == episode:
            return self.recorder
        if self.recorder is not None:
            self.recorder.rig.destroy()
            self.recorder = None
        client = self.server.client
        world = open_world(client, recording.town, recording.fixed_delta_s)
        rig = Rig(world, recording.view_width, recording.view_height, ground_truth=recording.record_ground_truth)
        if recording.record_ground_truth:
            rig.find_instance_codes(client)
        self.recorder, self.episode = Recorder(world, client, rig), episode
        return self.recorder

    def exit_with_server(self) -> None:
        """End this process when the server's ends unasked; otherwise a tick would wait a minute for an answer."""
        process: Any = self.server.process
        if process is not None:
            process.wait()
        if not self.stopping:
            os._exit(1)
