"""The whole pipeline: collect, then train and score, each on its own work pool."""

from __future__ import annotations

from typing import Literal

from prefect import flow
from prefect.deployments import run_deployment

from infra.prefect_worker import end_with_worker


class StepFailed(RuntimeError):
    """A chained deployment did not complete."""


@flow(name="shareverse", validate_parameters=True, on_running=[end_with_worker])
def shareverse(target: Literal["local", "paper"] = "local") -> None:
    """Run `collect-dataset/<target>`, then `train-shareverse/<target>`; stop at the first that does not complete."""
    for name in ("collect-dataset", "train-shareverse"):
        run = run_deployment(f"{name}/{target}", timeout=None, poll_interval=2)
        if run.state is None or not run.state.is_completed():  # run_deployment returns, it does not raise
            state = run.state.name if run.state else "unknown"
            message = run.state.message if run.state else ""
            raise StepFailed(f"{name}/{target} ended as {state}: {message}")
