"""One server process for the tests that speak bare msgpack-rpc to it."""

from __future__ import annotations

import pytest

from tests.infra.minicarla.served import Rpc, Served

SETTINGS = [True, False, [True, 0.05], True, 0.01, 10, 0.0, False, 3000.0, 2000.0, True]


@pytest.fixture(scope="session")
def synchronous(tmp_path_factory):
    """A server in synchronous mode; in the end its log holds no traceback."""
    served = Served(tmp_path_factory.mktemp("server") / "log")
    with Rpc(served.port) as rpc:
        rpc.call("set_episode_settings", SETTINGS)
    yield served
    served.stop()
    assert served.log is not None
    assert "Traceback" not in served.log.read_text()


@pytest.fixture
def honest(synchronous):
    """A client that is served; in the end the server still ticks."""
    with Rpc(synchronous.port) as rpc:
        assert rpc.call("version") == "0.9.16"
        yield rpc
        assert rpc.call("tick_cue") > 0
    assert synchronous.process.poll() is None
