"""Figures of an earlier scoring: taken as they are, scored again after a change of scoring, refused when damaged."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.benchmark import outcomes
from tasks.benchmark.errors import BenchmarkError
from tasks.benchmark.paper import score as paper

DAMAGED = ["", "{", "[]", "7", '{"scoring": NaN}']


def paper_before(run: Any) -> Any:
    return paper.paper_score_before(run, None)  # type: ignore[arg-type]


def demo_before(run: Any) -> Any:
    return outcomes.scored_before(run, SimpleNamespace(size="demo"), None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("before", "name", "scoring", "figures"),
    [
        (paper_before, paper.MARKER, paper.SCORING, {"scenes": {}, "figures": {}}),
        (demo_before, "demo-benchmark.json", outcomes.SCORING, {"metrics": {}, "missing": {}}),
    ],
)
def test_figures_are_those_that_were_written(tmp_path, before, name, scoring, figures):
    run, marker = SimpleNamespace(folder=tmp_path), tmp_path / name
    assert before(run) is None
    marker.write_text(json.dumps({"scoring": scoring - 1}))
    assert before(run) is None
    marker.write_text(json.dumps({"scoring": scoring} | figures))
    assert before(run) is not None
    lacking = [json.dumps({"scoring": scoring} | figures | {key: None}) for key in figures]
    for text in (*DAMAGED, *lacking):
        marker.write_text(text)
        with pytest.raises(BenchmarkError, match="remove it and run the deployment again"):
            before(run)
