"""Entries of services.json that describe no service."""

from __future__ import annotations

import pytest

from infra.stack.services import StackError, parse_service

ENTRY = {"name": "prefect", "pid": 4711, "started": 1.5e9, "address": "http://127.0.0.1:4200"}


@pytest.mark.parametrize(
    "change",
    [{"started": 10**400}, {"started": -1}, {"started": float("nan")}, {"pid": 10**400}, {"pid": True},
     {"address": "http://127.0.0.1:" + "9" * 5000}, {"address": "http://127.0.0.1:65536"}, {"name": ["prefect"]}],
)  # fmt: skip
def test_numbers_that_cannot_be_are_refused(change):
    assert parse_service(ENTRY).address == ENTRY["address"]
    with pytest.raises(StackError, match="describes no service"):
        parse_service(ENTRY | change)
