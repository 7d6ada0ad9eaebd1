"""The worker outlives its server."""

from __future__ import annotations

import asyncio

import prefect.workers.base
import pytest
from prefect._internal import observers

from infra.stack import prefect_worker


@pytest.fixture
def ends(monkeypatch):
    """Return how Prefect's loop shall end, time after time."""
    endings: list[Exception | None] = []

    async def loop(workload, interval):
        assert (workload, interval) == ("work", 1)
        ending = endings.pop(0)
        if ending:
            raise ending

    monkeypatch.setattr(prefect_worker, "critical_service_loop", loop)
    return endings


def test_a_loop_that_gave_up_begins_anew(ends, capsys):
    ends += [RuntimeError("Service exceeded error threshold."), RuntimeError("Service exceeded error threshold."), None]
    asyncio.run(prefect_worker.loop_without_end("work", interval=1))
    assert ends == []
    assert capsys.readouterr().out.count("goes on trying") == 2


def test_other_errors_end_it(ends):
    ends += [RuntimeError("another")]
    with pytest.raises(RuntimeError, match="another"):
        asyncio.run(prefect_worker.loop_without_end("work", interval=1))


@pytest.mark.parametrize("module", [prefect.workers.base, observers])
def test_prefect_gives_up_where_it_is_replaced(module):
    with pytest.raises(RuntimeError, match="exceeded error threshold"):
        asyncio.run(module.critical_service_loop(failing, 0.0, backoff=1, printer=lambda *text: None))


async def failing() -> None:
    import httpx

    raise httpx.ConnectError("gone")
