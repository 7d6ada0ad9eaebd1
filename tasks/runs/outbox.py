"""What MLflow is to be given of a run, `runs/<id>/outbox/`: written first, removed when MLflow has it.

Nothing that was measured depends on MLflow's answer, and nothing is sent twice: rows carry their own time, figures
that MLflow has already are passed over, files are replaced.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.mlflow_tracking import RunLog, TrackingError
from infra.reading import one_line, read_json
from infra.storage import atomic_file, home
from tasks.runs.mlflow_run import UNREACHABLE, MlflowTarget, target_of
from tasks.runs.run import Run
from tasks.runs.spool import read_rows

FINISHED = "finished.json"


@dataclass(frozen=True)
class Parcel:
    """What one step of the work gives to one MLflow run."""

    kind: str
    """Names the file: a later parcel of the kind takes the place of one that was not sent."""
    spool: bool = False
    """Send the rows of metrics.jsonl, and the samples they name."""
    step: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    artifacts: dict[str, str] = field(default_factory=dict)
    """Files and folders by their path in SHAREVERSE_HOME, and the folder each has in MLflow."""
    note: str = ""
    missing: dict[str, str] = field(default_factory=dict)
    status: str = ""
    """FINISHED, FAILED or KILLED end the MLflow run; empty leaves it open."""
    failure: str = ""

    def send(self, log: RunLog, run: Run) -> None:
        """Give it to an open MLflow run. TrackingError, MlflowException or OSError when it is not taken."""
        if self.spool:
            rows = read_rows(run.spool)
            log.metrics(rows)
            if log.waiting:
                raise TrackingError(f"{len(log.waiting)} metric values could not be sent")
            for row in rows:
                if "sample" in row:
                    log.artifacts(run.folder / row["sample"], "samples")
        if self.metrics:
            log.final_metrics(self.metrics, step=self.step)
        for path, folder in self.artifacts.items():
            log.artifacts(home() / path, folder)
        if self.note:
            log.describe(self.note, self.missing)
        if self.failure:
            log.set_failure(self.failure)
        if self.status:
            log.close(self.status)


def within_home(path: Path) -> str:
    """Return a path as parcels name it."""
    return str(path.relative_to(home()))


class Outbox:
    """The parcels of one run that MLflow has not got."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir, self.folder = run_dir, run_dir / "outbox"

    def put(self, target: MlflowTarget, parcel: Parcel) -> None:
        """Write a parcel down."""
        record = {"time_s": time.time(), "target": dataclasses.asdict(target), "parcel": dataclasses.asdict(parcel)}
        with atomic_file(self.folder / f"{target.experiment}.{target.key}.{parcel.kind}.json") as path:
            path.write_text(json.dumps(record, indent=1, allow_nan=False))

    def files(self) -> Iterator[Path]:
        """Yield what waits, the oldest first. TrackingError for a damaged file."""
        files = list(self.folder.glob("[!.]*.json"))
        yield from sorted(files, key=lambda file: self.record(file)["time_s"])

    def record(self, file: Path) -> dict[str, Any]:
        advice = "remove it, and score the run again to send its figures."
        record: dict[str, Any] = read_json(file, advice, error=TrackingError)
        kinds: dict[str, Any] = {"time_s": (int, float), "target": dict, "parcel": dict}
        if any(not isinstance(record.get(key), kind) for key, kind in kinds.items()):
            raise TrackingError(f"{file} holds nothing that can be sent: {advice}")
        return record

    def read(self, file: Path) -> tuple[dict[str, Any], Parcel]:
        """Return the fields of a parcel's target, and the parcel. TrackingError for a damaged file."""
        record = self.record(file)
        try:
            return record["target"], Parcel(**record["parcel"])
        except TypeError as error:
            raise TrackingError(
                f"{file} is of another version ({error}): remove it, and score the run again."
            ) from error

    def sent(self, file: Path, url: str) -> None:
        """Forget a parcel that MLflow has; a run that was finished meanwhile learns where it is."""
        finished = self.run_dir / FINISHED
        if finished.exists():
            record = read_json(finished, "remove it and run the deployment again.", error=TrackingError)
            if not record.get("mlflow_url"):
                with atomic_file(finished) as path:
                    path.write_text(json.dumps(record | {"mlflow_url": url}, indent=1))
        file.unlink(missing_ok=True)


def post(run: Run, parcel: Parcel, tags: Mapping[str, str], target: MlflowTarget | None = None) -> str:
    """Put what MLflow is to be given into the run's outbox, and send what can be sent; return what to tell, or nothing.

    What is not sent is sent by the next flow that works on the run (`deliver`).
    """
    chosen = target or target_of(run)
    Outbox(run.folder).put(chosen, parcel)
    return deliver(run, tags)


def deliver(run: Run, tags: Mapping[str, str]) -> str:
    """Send what waits in a run's outbox, in its order; return what to tell where something is left, or nothing."""
    outbox = Outbox(run.folder)
    try:
        for file in outbox.files():
            where, parcel = outbox.read(file)
            log = MlflowTarget(**where)(run, tags)
            parcel.send(log, run)
            outbox.sent(file, log.url)
    except UNREACHABLE as error:
        return (
            f"MLflow misses some of run {run.run_id} ({error}). All of it is safe in {run.folder} and is sent by the "
            "next flow that works on this run: run the deployment again when MLflow answers."
        )
    return ""


def mark_failed(run: Run, tags: Mapping[str, str], error: BaseException, target: MlflowTarget | None = None) -> str:
    """End a run's MLflow run as failed, with the reason; return what to tell, or nothing."""
    return post(run, Parcel("failure", status="FAILED", failure=one_line(error)), tags, target)
