"""`make demo`: run the deployments as a user would, show their logs, print the outcome and where to look.

Two acts: a model of two cars, recorded, trained and scored; then the proof that its agents share a world, by a fact
that only one of them can know.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId, LogFilterTimestamp
from prefect.client.schemas.sorting import LogSort
from prefect.deployments import run_deployment

from infra.reading import read_bytes, read_json
from infra.stack import password_hint, status_lines
from infra.storage import home
from tasks.benchmark.arms import ablation_of
from tasks.benchmark.outcomes import report_folder, standing_of
from tasks.benchmark.page import PAGE_FILE, PICTURE_FILE
from tasks.benchmark.summary import row_of, table

BASELINE_FIGURES = ("/psnr", "/ssim")
"""What is printed of the baselines; the page has the rest."""
POLL_S = 1.0
PAGE = 200
LATE = timedelta(seconds=15)
"""How much later than its time a line may arrive."""
LAST_LINES_S = 15.0
"""Patience with the lines of a run that has ended."""


class Finished(RuntimeError):
    """A deployment's run ended otherwise than completed."""


class RunLog:
    """The log of a flow run as it grows. Lines of several processes arrive late and out of order."""

    def __init__(self, client: SyncPrefectClient, run_id: UUID) -> None:
        self.client, self.run_id = client, run_id
        self.seen: set[UUID] = set()
        self.since = datetime.now(UTC) - LATE
        self.ended = False
        """The flow's own last line was seen."""

    def new(self) -> Iterator[str]:
        """Yield the lines that were not seen yet."""
        chosen = LogFilter(
            flow_run_id=LogFilterFlowRunId(any_=[self.run_id]), timestamp=LogFilterTimestamp(after_=self.since)
        )
        offset = 0
        while True:
            page = self.client.read_logs(log_filter=chosen, limit=PAGE, offset=offset, sort=LogSort.TIMESTAMP_ASC)
            for log in page:
                if log.id not in self.seen:
                    self.seen.add(log.id)
                    self.ended |= log.task_run_id is None and log.message.startswith("Finished in state")
                    yield f"{log.timestamp.astimezone():%H:%M:%S}  {log.message}"
            if len(page) < PAGE:
                break
            offset += PAGE
        if page:
            self.since = max(self.since, page[-1].timestamp - LATE)


def follow(deployment: str) -> None:
    """Run a deployment and print its log until it ends; raise Finished unless it completed."""
    print(f"\n== prefect deployment run '{deployment}'", flush=True)
    run = run_deployment(deployment, timeout=0)
    with get_client(sync_client=True) as client:
        log, deadline = RunLog(client, run.id), None
        while True:
            state = client.read_flow_run(run.id).state
            for line in log.new():
                print(line, flush=True)
            if state is not None and state.is_final():
                deadline = deadline or time.monotonic() + LAST_LINES_S
                if log.ended or time.monotonic() > deadline:  # a killed flow has no last line
                    break
            time.sleep(POLL_S)  # the server has no blocking call; this is its polling interval
    if not state.is_completed():
        raise Finished(f"{deployment} ended as {state.name}: {state.message}")


def outcome() -> list[str]:
    """Return the lines to print at the end: the last run's figures, its verdict, and the addresses.

    Finished when the run or its report cannot be read.
    """
    again = "run make demo again."
    last = read_bytes(home() / "runs" / "last", again, Finished).decode("ascii", "replace").strip()
    run_dir = home() / "runs" / last
    report = read_json(run_dir / "evaluation" / "report.json", again, error=Finished)
    lines = ["", "== Outcome", f"run {run_dir.name}, {run_dir}"]
    shown = {
        name: value
        for name, value in report["metrics"].items()
        if name.count("/") == 1 or name.endswith(BASELINE_FIGURES)
    }
    lines += [f"  {name:<40} {value:8.3f}" for name, value in shown.items()]
    lines += [f"  {name:<40} {reason}" for name, reason in report["missing"].items() if "/" not in name]
    lines += ["", *report["verdict"], ""]
    lines += [f"videos and report   {run_dir / 'evaluation'}", f"this run in MLflow  {report['mlflow_url']}"]
    return lines


def second_act() -> list[str]:
    """Return the lines on the hidden fact: figures, and the picture that explains them."""
    standing = standing_of(ablation_of("demo"))
    rows = table([row_of(score) for _, score in standing]).splitlines()
    folder = next(report_folder(run, "demo") for run, score in standing if score.arm.name == "cross")
    places = [f"look at             {folder / PICTURE_FILE}", f"and, as a page,     {folder / PAGE_FILE}"]
    return ["", "== Does what one car knows reach the other?", *rows, "", *places]


def main() -> int:
    started = time.monotonic()
    try:
        follow("collect-dataset/local")
        follow("train-shareverse/local")
        follow("ablate-shareverse/demo")
        lines = [*outcome(), *second_act()]
    except Finished as error:
        print(error, file=sys.stderr)
        return 1
    services = ["", "== Services (make down ends them)", *status_lines(), password_hint()]
    print("\n".join([*lines, *services]))
    print(f"\nDone in {(time.monotonic() - started) / 60:.1f} minutes.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
