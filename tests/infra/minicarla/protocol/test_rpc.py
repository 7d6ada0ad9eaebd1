"""One bad request, or one broken method, does not stop the others."""

from __future__ import annotations

import contextlib
import logging
import threading
import time

import msgpack
import pytest

from infra.minicarla.protocol import rpc
from infra.minicarla.protocol.arguments import Id
from infra.minicarla.protocol.listening import Shortage, listen
from infra.minicarla.protocol.refusal_log import LINES, RefusalLog
from infra.minicarla.protocol.rpc import RpcServer, method
from tests.infra.minicarla.served import Rpc


class Broken(Exception):
    pass


class Methods:
    @method
    def double(self, number: Id):
        return 2 * number

    @method(void=True)
    def fail(self, number: Id):
        raise [Broken("x"), MemoryError(), RecursionError(), ZeroDivisionError(), AttributeError("y")][number]

    @method
    def unpackable(self):
        return object()

    @method(raw=True)
    def apply_batch(self, number: Id):
        return []


@pytest.fixture
def served():
    server = RpcServer(listen(0), Methods(), threading.RLock(), {"fly": "fly: nobody has wings: walk"})
    server.port = server.listener.getsockname()[1]
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    yield server
    server.stop()
    thread.join(5)
    assert not thread.is_alive()


def test_any_exception_answers_its_caller_and_is_logged(served, caplog):
    with Rpc(served.port) as bad, Rpc(served.port) as good:
        for number in range(5):
            with pytest.raises(RuntimeError, match="fail failed: "):
                bad.call("fail", number)
            assert good.call("double", number) == 2 * number
        with pytest.raises(RuntimeError, match="unpackable failed: TypeError"):
            bad.call("unpackable")
        assert bad.call("double", 4) == 8
    assert caplog.text.count("Traceback") == 6


def test_functions_that_are_not_there_answer_in_carlas_own_form(served):
    with Rpc(served.port) as client:
        assert client.result("fly") == [[0, ["fly: nobody has wings: walk"]]]
        (void,) = client.result("set_ignored_vehicles")
        assert void == [True, ["the embedded CARLA has no function 'set_ignored_vehicles'"]]
        assert client.result("__init__")[0][0] == 0
        assert client.result("apply_batch", -1)[0][0][0] == 0


def test_a_message_that_stays_unfinished_ends_its_connection_alone(served, monkeypatch):
    monkeypatch.setattr(rpc, "MESSAGE_S", 0.3)
    monkeypatch.setattr(rpc, "WAKE_S", 1)
    with Rpc(served.port) as half, Rpc(served.port) as trickle, Rpc(served.port) as good:
        half.send(b"\x94\x00\x01")
        with contextlib.suppress(OSError):
            for byte in b"\x94\x00\x01\xa6double\x92\x91\xc2" + b"\xdb\x00\x01\x00\x00" + b"x" * 100:
                trickle.send(bytes([byte]))
                time.sleep(0.01)
        for client in (half, trickle):
            with pytest.raises((ConnectionError, RuntimeError)):
                while True:
                    client.receive()
        assert good.call("double", 3) == 6


def test_a_connection_that_was_idle_for_long_may_send_in_pieces(served, monkeypatch):
    monkeypatch.setattr(rpc, "MESSAGE_S", 0.3)
    with Rpc(served.port) as client:
        assert client.call("double", 3) == 6
        time.sleep(0.5)
        data = msgpack.packb([0, 9, "double", [[False], 4]])
        client.send(data[:5])
        time.sleep(0.1)
        client.send(data[5:])
        assert client.receive() == [1, 9, None, [[1, 8]]]


@pytest.mark.parametrize("shortages", [1, 5])
def test_the_accept_loop_outlives_shortages_and_broken_connections(monkeypatch, shortages):
    results = [Shortage("no descriptor")] * shortages + [None]
    real = rpc.accept

    def accept(listener):
        result = results.pop() if results else real(listener)
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(rpc, "accept", accept)
    server = RpcServer(listen(0), Methods(), threading.RLock())
    threading.Thread(target=server.serve, daemon=True).start()
    with Rpc(server.listener.getsockname()[1]) as client:
        assert client.call("double", 1) == 2
    server.stop()


def test_the_log_holds_few_of_many_equal_refusals(caplog):
    refusals = RefusalLog(logging.getLogger("test"))
    for number in range(1_000):
        refusals.write("tick", f"number {number}")
    assert len(caplog.records) == LINES
    refusals.kinds["tick"] = (0.0, 1_000)
    refusals.write("tick", "later")
    assert "995 more refusals" in caplog.text
