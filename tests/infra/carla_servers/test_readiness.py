"""When a server counts as ready, with a client that answers from a script."""

from __future__ import annotations

import os
import signal
import sys
import time
from types import SimpleNamespace

import psutil
import pytest

from infra.carla_servers import CarlaServer, NotReady, SimulatorSpec, readiness
from infra.carla_servers import render_probe as probe
from infra.carla_servers.readiness import Deadline, await_image
from infra.carla_servers.render_probe import render_probe


class FakeClient:
    """A world whose camera delivers images of some ticks only; `stale` images of earlier frames come first."""

    def __init__(self, rendered: set[int], stale: int = 0) -> None:
        self.rendered, self.stale = rendered, stale
        self.frame, self.ticks, self.synchronous = 100, 0, [False]
        self.told: list[str] = []

    def set_timeout(self, seconds: float) -> None:
        assert seconds > 0

    def get_world(self) -> FakeClient:
        return self

    def get_map(self) -> SimpleNamespace:
        return SimpleNamespace(name="Town01")

    def get_settings(self) -> SimpleNamespace:
        return SimpleNamespace(synchronous_mode=self.synchronous[-1], fixed_delta_seconds=None)

    def apply_settings(self, settings: SimpleNamespace) -> None:
        self.synchronous.append(settings.synchronous_mode)

    def get_blueprint_library(self) -> SimpleNamespace:
        return SimpleNamespace(find=lambda name: SimpleNamespace(set_attribute=lambda *attribute: None))

    def spawn_actor(self, blueprint: object, pose: object) -> SimpleNamespace:
        return SimpleNamespace(
            listen=self.listen, stop=lambda: self.told.append("stop"), destroy=lambda: self.told.append("destroy")
        )

    def listen(self, callback) -> None:
        self.callback = callback
        for frame in range(self.frame - self.stale, self.frame):
            callback(SimpleNamespace(frame=frame))

    def tick(self, seconds: float) -> int:
        assert seconds > 0
        self.ticks += 1
        self.frame += 1
        if self.ticks in self.rendered:
            self.callback(SimpleNamespace(frame=self.frame))
        return self.frame


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(probe, "IMAGE_TIMEOUT_S", 0.05)


@pytest.mark.parametrize(("rendered", "stale", "ticks"), [({1}, 0, 1), ({3, 4}, 0, 3), ({2}, 5, 2)])
def test_the_world_is_ticked_until_an_image_of_a_tick_comes(rendered, stale, ticks):
    """A first image may be dropped, and images may start a tick later (carla #5616)."""
    client = FakeClient(rendered, stale)
    render_probe(client, Deadline(10.0))
    assert client.ticks == ticks
    assert client.synchronous == [False, True, False]
    assert client.told == ["stop", "destroy"]


def test_a_camera_without_images_misses_the_deadline():
    with pytest.raises(NotReady, match=r"it was not ready after 0\.3 s"):
        render_probe(FakeClient(set()), Deadline(0.3))


def test_a_server_without_a_map_does_not_render(monkeypatch):
    client = FakeClient({1})
    monkeypatch.setattr(client, "get_map", lambda: SimpleNamespace(name=""))
    with pytest.raises(AssertionError, match="it has no map"):
        render_probe(client, Deadline(10.0))


RUNNING = SimpleNamespace(poll=lambda: None)
ENDED = SimpleNamespace(poll=lambda: -11)


def probe_that(monkeypatch, statements: str) -> None:
    """Let the probe be another program."""
    monkeypatch.setattr(readiness, "PROBE", (sys.executable, "-c", statements))


def test_a_probe_that_hangs_does_not_outlive_the_deadline_nor_the_server(monkeypatch):
    probe_that(monkeypatch, "import signal; signal.pause()")
    before = time.monotonic()
    with pytest.raises(NotReady, match=r"it was not ready after 0\.3 s"):
        await_image(RUNNING, 1, Deadline(0.3))
    with pytest.raises(NotReady, match="the server ended before it rendered"):
        await_image(ENDED, 1, Deadline(60.0))
    assert time.monotonic() - before < 20.0
    assert not [child for child in psutil.Process().children(recursive=True) if "signal.pause()" in child.cmdline()[-1]]


@pytest.mark.parametrize(
    ("statements", "reason"),
    [
        ("print('INFO'); print('rpc::rpc_error during call'); raise SystemExit(1)", "rpc::rpc_error during call$"),
        ("import os; os.abort()", "the probe ended with code -6$"),
    ],
)
def test_what_ended_the_probe_is_the_reason(monkeypatch, statements, reason):
    probe_that(monkeypatch, statements)
    with pytest.raises(NotReady, match=f"it answered but did not render: {reason}"):
        await_image(RUNNING, 1, Deadline(30.0))


def test_a_server_that_stops_answering_is_not_ready(tmp_path):
    with CarlaServer(SimulatorSpec(), tmp_path, "server") as server:
        await_image(server.process, server.port, Deadline(60.0))
        os.kill(server.pid, signal.SIGSTOP)
        with pytest.raises(NotReady, match=r"it was not ready after 3 s"):
            await_image(server.process, server.port, Deadline(3.0))
        os.kill(server.pid, signal.SIGCONT)
