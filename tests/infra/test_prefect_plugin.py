"""`prefect deployment run collect-dataset` means collect-dataset/local."""

from __future__ import annotations

import pytest

from infra.prefect_plugin import complete_deployment_name


@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("prefect deployment run collect-dataset", "prefect deployment run collect-dataset/local"),
        ("prefect deployment run --watch train-shareverse", "prefect deployment run --watch train-shareverse/local"),
        ("prefect --no-prompt deployment run shareverse", "prefect --no-prompt deployment run shareverse/local"),
        ("prefect deployment run train-shareverse/paper", "prefect deployment run train-shareverse/paper"),
        ("prefect deployment run -p shareverse x/y", "prefect deployment run -p shareverse x/y"),
        ("prefect deployment run other", "prefect deployment run other"),
        ("prefect deployment ls", "prefect deployment ls"),
        ("prefect", "prefect"),
    ],
)
def test_bare_flow_names_are_completed(line, completed):
    assert complete_deployment_name(line.split(), "local") == completed.split()
