"""When a server counts as ready, with a client that answers from a script."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest

from infra.carla_servers import NotReady, readiness
from infra.carla_servers.readiness import Deadline, await_image, render_probe


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
    monkeypatch.setattr(readiness, "IMAGE_TIMEOUT_S", 0.05)


@pytest.mark.parametrize(("rendered", "stale", "ticks"), [({1}, 0, 1), ({3, 4}, 0, 3), ({2}, 5, 2)])
def test_the_world_is_ticked_until_an_image_of_a_tick_comes(rendered, stale, ticks):
    """A first image may be dropped, and images may start a tick later (carla #5616)."""
    client = FakeClient(rendered, stale)
    render_probe(client, Deadline(10.0))
    assert client.ticks == ticks
    assert client.synchronous == [False, True, False]
    assert client.told == ["stop", "destroy"]


RUNNING = SimpleNamespace(poll=lambda: None)


def test_a_server_that_never_renders_misses_the_one_deadline():
    client = FakeClient(set())
    before = time.monotonic()
    with pytest.raises(NotReady, match=r"it was not ready after 0\.6 s"):
        await_image(RUNNING, client, Deadline(0.6))
    assert time.monotonic() - before < 1.5


def test_a_tick_that_hangs_does_not_outlive_the_deadline_nor_the_process(monkeypatch):
    client = FakeClient({1})
    released = threading.Event()
    monkeypatch.setattr(client, "tick", lambda seconds: 1 + released.wait(60.0))
    with pytest.raises(NotReady, match=r"it was not ready after 0\.3 s"):
        await_image(RUNNING, client, Deadline(0.3))
    with pytest.raises(NotReady, match="the server ended before it rendered"):
        await_image(SimpleNamespace(poll=lambda: -11), client, Deadline(60.0))
    released.set()


def test_what_the_client_says_is_the_reason(monkeypatch):
    client = FakeClient({1})

    def tick(seconds):
        raise RuntimeError("rpc::rpc_error during call in function tick_cue")

    monkeypatch.setattr(client, "tick", tick)
    with pytest.raises(NotReady, match=r"it answered but did not render: rpc::rpc_error during call"):
        await_image(RUNNING, client, Deadline(10.0))


def test_a_server_without_a_map_does_not_render(monkeypatch):
    client = FakeClient({1})
    monkeypatch.setattr(client, "get_map", lambda: SimpleNamespace(name=""))
    with pytest.raises(NotReady, match="it has no map"):
        await_image(RUNNING, client, Deadline(10.0))
