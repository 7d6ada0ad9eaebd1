"""MLflow: one top-level run per training, found again by its ShareVerse run id.

Training writes its metrics to a file first and never waits for MLflow, so they outlive a server that is down. Rows
carry their own time, so a row sent twice is one point; after a crash everything is sent again.
"""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from infra.installation import CODE, in_clone, shell_command
from infra.places import Place

EXPERIMENT = "shareverse"
DATA_EXPERIMENT = "shareverse-datasets"
RUN_ID_TAG = "shareverse.run_id"
MISSING_TAG_PREFIX = "missing."
"""Prefix of the tags that say why a figure could not be measured."""
MAX_METRICS_PER_REQUEST = 900
TRAINING_VIEW = "workflowType=machine_learning"
"""Opens MLflow's UI in its mode "Model training"; the other one, its default, hides an experiment's runs."""
MAX_PARAM_LENGTH = 6000


FAILURE_TAG = "shareverse.failure"
"""Tag that says why a run failed; removed when the run continues."""
MAX_TAG_LENGTH = 4000


class TrackingError(RuntimeError):
    """MLflow does not answer, or refuses a request."""


def git_sha() -> str:
    """Return the running code's commit, with `-dirty` where files were changed, or 'unknown'.

    A container image holds no repository: SHAREVERSE_GIT_SHA names the commit that it was built from. Installed
    packages have no commit, even where their environment lies in another repository.
    """
    if os.environ.get("SHAREVERSE_GIT_SHA"):
        return os.environ["SHAREVERSE_GIT_SHA"]
    if shutil.which("git") is None or not in_clone():
        return "unknown"
    result = subprocess.run(
        ["git", "describe", "--always", "--abbrev=12", "--dirty", "--exclude=*"],
        cwd=CODE, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return result.stdout.strip() if result.returncode == 0 else "unknown"


def mlflow_client() -> Any:
    """Return an `mlflow.MlflowClient` for MLFLOW_TRACKING_URI; TrackingError when none is named."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    import mlflow

    address = os.environ.get("MLFLOW_TRACKING_URI")
    if not address:
        raise TrackingError(
            f"MLFLOW_TRACKING_URI is not set: start the services with `{shell_command('up')}`, or name your server."
        )
    mlflow.set_tracking_uri(address)
    return mlflow.MlflowClient(address)


class RunLog:
    """One MLflow run. Metrics wait in memory while the server is down; `close` sends them, or raises."""

    def __init__(self, experiment: str, key: str, name: str, tags: Mapping[str, str]) -> None:
        """Open the run tagged `key` in `experiment`, or create it. TrackingError when MLflow cannot be used."""
        from mlflow.exceptions import MlflowException

        try:
            self.client = mlflow_client()
            existing = self.client.get_experiment_by_name(experiment)
            experiment_id = existing.experiment_id if existing else self.client.create_experiment(experiment)
            runs = self.client.search_runs([experiment_id], f"tags.`{RUN_ID_TAG}` = '{key}'", max_results=1)
            if runs:
                self.run_id = runs[0].info.run_id
                self.client.update_run(self.run_id, status="RUNNING")
                for tag, value in tags.items():
                    self.client.set_tag(self.run_id, tag, value)
                if FAILURE_TAG in runs[0].data.tags:
                    self.client.delete_tag(self.run_id, FAILURE_TAG)
            else:
                all_tags = {RUN_ID_TAG: key, "mlflow.source.git.commit": git_sha(), **tags}
                self.run_id = self.client.create_run(experiment_id, tags=all_tags, run_name=name).info.run_id
        except (MlflowException, OSError) as error:
            raise TrackingError(f"MLflow at {os.environ['MLFLOW_TRACKING_URI']} cannot be used: {error}") from error
        fragment = f"#/experiments/{experiment_id}/runs/{self.run_id}?{TRAINING_VIEW}"
        self.url = f"{os.environ['MLFLOW_TRACKING_URI']}/{fragment}"
        self.waiting: list[Any] = []

    def params(self, values: Mapping[str, Any]) -> None:
        """Log parameters. Those already logged must be equal; they are, as the run id is a hash of them."""
        from mlflow.entities import Param

        rows = [Param(key, str(value)[:MAX_PARAM_LENGTH]) for key, value in values.items()]
        for start in range(0, len(rows), 90):
            self.client.log_batch(self.run_id, params=rows[start : start + 90])

    def dataset(self, name: str, digest: str, folder: Path) -> None:
        """Link the run to a data set by its digest, of which MLflow keeps 36 characters; a tag holds all of it."""
        from mlflow.data.filesystem_dataset_source import FileSystemDatasetSource
        from mlflow.data.meta_dataset import MetaDataset
        from mlflow.entities import DatasetInput, InputTag

        place = Place.of(folder)

        class Folder(FileSystemDatasetSource):
            """A data set folder on this machine or a shared disk."""

            @staticmethod
            def _get_source_type() -> str:
                return "local"

            @property
            def uri(self) -> str:
                return place.url or folder.as_uri()

            def load(self, dst_path: str | None = None) -> str:
                return str(place)

            @staticmethod
            def _can_resolve(raw_source: Any) -> bool:
                return False

            @classmethod
            def _resolve(cls, raw_source: Any) -> Any:
                raise NotImplementedError("a data set folder is named by its path")

            def to_dict(self) -> dict[str, str]:
                return {"uri": self.uri}

            @classmethod
            def from_dict(cls, source_dict: dict) -> Any:
                return cls()

        entry = MetaDataset(Folder(), name=name, digest=digest[:36])._to_mlflow_entity()
        self.client.log_inputs(self.run_id, [DatasetInput(entry, [InputTag("mlflow.data.context", "training")])])
        self.client.set_tag(self.run_id, "shareverse.dataset_digest", digest)

    def metrics(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Queue rows `{"step": int, "time_s": epoch seconds, name: number, ...}` and send as much as possible.

        Values that are no numbers are skipped; a NaN is sent as it is, so that it shows.
        """
        from mlflow.entities import Metric

        for row in rows:
            timestamp_ms = round(1000 * row["time_s"])
            self.waiting += [
                Metric(name, float(value), timestamp_ms, int(row["step"]))
                for name, value in row.items()
                if name not in ("step", "time_s") and isinstance(value, (int, float)) and not isinstance(value, bool)
            ]
        self.send()

    def send(self) -> str:
        """Send the queue; return why it could not be sent, empty where all was sent."""
        from mlflow.exceptions import MlflowException

        while self.waiting:
            try:
                self.client.log_batch(self.run_id, metrics=self.waiting[:MAX_METRICS_PER_REQUEST])
            except (MlflowException, OSError) as error:
                return str(error)
            del self.waiting[:MAX_METRICS_PER_REQUEST]
        return ""

    def final_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Log the figures of a finished evaluation at `step`. ValueError for one that is not finite.

        A figure whose last value at this step is the same is not sent again. MLflow would drop equal points only at
        equal times, and takes the larger of two values at one time for the last.
        """
        from mlflow.entities import Metric

        for name, value in values.items():
            if not math.isfinite(value):
                raise ValueError(f"metric {name} is {value}: a figure that could not be computed must not be logged.")
        known, timestamp_ms = self.client.get_run(self.run_id).data.metrics, round(1000 * time.time())
        rows = [
            Metric(name, value, timestamp_ms, step)
            for name, value in values.items()
            if name not in known or self.last_value(name, step) != value
        ]
        for start in range(0, len(rows), MAX_METRICS_PER_REQUEST):
            self.client.log_batch(self.run_id, metrics=rows[start : start + MAX_METRICS_PER_REQUEST])

    def last_value(self, name: str, step: int) -> float | None:
        """Return the value that a metric was last given at a step; None where it has none."""
        points = [point for point in self.client.get_metric_history(self.run_id, name) if point.step == step]
        return max(points, key=lambda point: point.timestamp).value if points else None

    def artifacts(self, path: Path, folder: str) -> None:
        """Upload a file, or the files of a folder, under `folder`."""
        if path.is_dir():
            self.client.log_artifacts(self.run_id, str(path), folder)
        else:
            self.client.log_artifact(self.run_id, str(path), folder)

    def describe(self, text: str, missing: Mapping[str, str]) -> None:
        """Set the run's description, and a tag with the reason per figure that could not be measured.

        Both replace those of an earlier call: tags of figures that are no longer missing are deleted.
        """
        self.client.set_tag(self.run_id, "mlflow.note.content", text)
        tags = {f"{MISSING_TAG_PREFIX}{name}": reason for name, reason in missing.items()}
        for tag in self.client.get_run(self.run_id).data.tags:
            if tag.startswith(MISSING_TAG_PREFIX) and tag not in tags:
                self.client.delete_tag(self.run_id, tag)
        for tag, reason in tags.items():
            self.client.set_tag(self.run_id, tag, reason)

    def set_failure(self, reason: str) -> None:
        """Tag the run with the reason why it failed; the tag is removed when the run is opened again."""
        self.client.set_tag(self.run_id, FAILURE_TAG, reason[:MAX_TAG_LENGTH])

    def close(self, status: str = "FINISHED") -> None:
        """Send the queue and end the run. TrackingError when some of it could not be sent."""
        reason = self.send()
        if reason:
            raise TrackingError(
                f"{len(self.waiting)} metric values could not be sent to MLflow ({reason}); they are safe in the run's "
                "metrics.jsonl: run the deployment again to send them."
            )
        self.client.set_terminated(self.run_id, status)


def flatten(values: Mapping[str, Any], drop: Sequence[str] = ()) -> dict[str, Any]:
    """Flatten nested mappings to `section.name` keys, without the sections in `drop`."""
    rows: dict[str, Any] = {}
    for key, value in values.items():
        if key in drop:
            continue
        if isinstance(value, Mapping):
            rows |= {f"{key}.{name}": inner for name, inner in flatten(value).items()}
        else:
            rows[key] = value
    return rows
