"""`make demo`: run both deployments as a user would, show their logs, print the outcome and where to look."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.client.schemas.sorting import LogSort
from prefect.deployments import run_deployment

from infra.stack import status_lines
from infra.storage import home

POLL_S = 1.0


class Finished(RuntimeError):
    """A deployment's run ended otherwise than completed."""


def new_logs(client: SyncPrefectClient, run_id: Any, seen: int) -> Iterator[str]:
    """Yield the messages of the run's log after the first `seen`."""
    chosen = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run_id]))
    while True:
        page = client.read_logs(log_filter=chosen, limit=200, offset=seen, sort=LogSort.TIMESTAMP_ASC)
        yield from (f"{log.timestamp.astimezone():%H:%M:%S}  {log.message}" for log in page)
        if len(page) < 200:
            return
        seen += len(page)


def follow(deployment: str) -> None:
    """Run a deployment and print its log until it ends; raise Finished unless it completed."""
    print(f"\n== prefect deployment run '{deployment}'", flush=True)
    run = run_deployment(deployment, timeout=0)
    seen = 0
    with get_client(sync_client=True) as client:
        while True:
            state = client.read_flow_run(run.id).state
            for line in new_logs(client, run.id, seen):
                print(line, flush=True)
                seen += 1
            if state is not None and state.is_final():
                break
            time.sleep(POLL_S)  # the server has no blocking call; this is its polling interval
    if not state.is_completed():
        raise Finished(f"{deployment} ended as {state.name}: {state.message}")


def outcome() -> list[str]:
    """Return the lines to print at the end: the last run's figures, its verdict, and the addresses."""
    run_dir = home() / "runs" / (home() / "runs" / "last").read_text().strip()
    report = json.loads((run_dir / "evaluation" / "report.json").read_text())
    lines = ["", "== Outcome", f"run {run_dir.name}, {run_dir}"]
    lines += [f"  {name:<34} {value:8.3f}" for name, value in report["metrics"].items()]
    lines += [f"  {name:<34} {reason}" for name, reason in report["missing"].items()]
    lines += ["", *report["verdict"], ""]
    lines += [f"videos and report   {run_dir / 'evaluation'}", f"this run in MLflow  {report['mlflow_url']}"]
    return [*lines, "", "== Services (make down ends them)", *status_lines()]


def main() -> int:
    started = time.monotonic()
    try:
        follow("collect-dataset/local")
        follow("train-shareverse/local")
    except Finished as error:
        print(error, file=sys.stderr)
        return 1
    print("\n".join(outcome()))
    print(f"\nDone in {(time.monotonic() - started) / 60:.1f} minutes.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
