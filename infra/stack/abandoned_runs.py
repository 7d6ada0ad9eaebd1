"""`python -m infra.stack.abandoned_runs`: marks the pool `local`'s unfinished flow runs as crashed."""

from __future__ import annotations

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import StateType
from prefect.states import Crashed


def main() -> None:
    """Mark every run that is running, pending or being cancelled."""
    alive = FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING, StateType.CANCELLING])
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(
            flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=alive)),
            work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=["local"])),
        )
        for run in runs:
            client.set_flow_run_state(
                run.id, Crashed(message="The worker was gone; run the deployment again."), force=True
            )


if __name__ == "__main__":
    main()
