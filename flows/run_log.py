"""Starts a deployment's run and follows its log to the end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId, LogFilterTimestamp
from prefect.client.schemas.sorting import LogSort
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

POLL_S = 1.0
PAGE_SIZE = 200
TRACEBACK = "\nTraceback (most recent call last):\n"
MAX_DELAY = timedelta(seconds=15)
"""How long after its timestamp a line may arrive."""
LAST_LINES_TIMEOUT_S = 15.0
"""Limit for the last lines of a run that has ended."""


class RunFailed(RuntimeError):
    """A deployment's run did not start, or did not complete."""


class FlowRunLog:
    """The log of a flow run as it grows. Lines of several processes arrive late and out of order.

    Tracebacks, which Prefect logs three times over, are left to its page and the worker's log.
    """

    def __init__(self, client: SyncPrefectClient, run_id: UUID) -> None:
        self.client, self.run_id = client, run_id
        self.seen: set[UUID] = set()
        self.since = datetime.now(UTC) - MAX_DELAY
        self.ended = False
        """Whether the flow's own last line was seen."""

    def new_lines(self) -> Iterator[str]:
        """Yield the lines that were not seen yet."""
        log_filter = LogFilter(
            flow_run_id=LogFilterFlowRunId(any_=[self.run_id]), timestamp=LogFilterTimestamp(after_=self.since)
        )
        offset = 0
        while True:
            page = self.client.read_logs(
                log_filter=log_filter, limit=PAGE_SIZE, offset=offset, sort=LogSort.TIMESTAMP_ASC
            )
            for log in page:
                if log.id not in self.seen:
                    self.seen.add(log.id)
                    self.ended |= log.task_run_id is None and log.message.startswith("Finished in state")
                    yield f"{log.timestamp.astimezone():%H:%M:%S}  {log.message.partition(TRACEBACK)[0]}"
            if len(page) < PAGE_SIZE:
                break
            offset += PAGE_SIZE
        if page:
            self.since = max(self.since, page[-1].timestamp - MAX_DELAY)


@contextlib.contextmanager
def as_run_failed(deployment: str) -> Iterator[None]:
    """Turn the errors of Prefect's client about a deployment into RunFailed."""
    try:
        yield
    except ObjectNotFound as error:
        raise RunFailed(f"{deployment} is not deployed: `prefect deployment ls` lists what is.") from error
    except PrefectHTTPStatusError as error:
        raise RunFailed(f"{deployment}: Prefect refuses: {refusal(error.response)}") from error
    except httpx.HTTPError as error:
        raise RunFailed(f"{deployment}: Prefect does not answer ({str(error) or type(error).__name__}).") from error


def start_run(deployment: str, parameters: dict[str, Any]) -> UUID:
    """Start a run of `<flow>/<deployment>` with its default parameters replaced by these; return the run's id.

    RunFailed for a deployment or a parameter that does not exist, values that the server refuses, or a server that does
    not answer.
    """
    with as_run_failed(deployment):
        with get_client(sync_client=True) as client:
            known = client.read_deployment_by_name(deployment).parameter_openapi_schema.get("properties", {})
        for name in sorted(parameters.keys() - known):  # the server would start the run, and that would crash
            raise RunFailed(f"{deployment} has no parameter {name!r}: it takes {', '.join(known)}.")
        return run_deployment(deployment, parameters=parameters, timeout=0).id


def refusal(response: httpx.Response) -> str:
    """Return the server's reason, or the body as it is where it is not one of Prefect's answers."""
    try:
        return str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return response.text


def watch_run(deployment: str, run_id: UUID) -> None:
    """Print a run's log until it ends. RunFailed, with `deployment` and the reason, unless it completed."""
    with as_run_failed(deployment), get_client(sync_client=True) as client:
        log, deadline = FlowRunLog(client, run_id), None
        while True:
            state = client.read_flow_run(run_id).state
            for line in log.new_lines():
                print(line, flush=True)
            if state is not None and state.is_final():
                deadline = deadline or time.monotonic() + LAST_LINES_TIMEOUT_S
                if log.ended or time.monotonic() > deadline:  # a killed flow has no last line
                    break
            time.sleep(POLL_S)  # the server has no blocking call; this is its polling interval
    if not state.is_completed():
        raise RunFailed(f"{deployment} ended as {state.name}: {state.message}")
