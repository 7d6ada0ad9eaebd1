"""The Grafana dashboard asks for what Ray's endpoint really exports: every metric, with every label."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tasks.recording.metrics import COUNTERS, GAUGES
from tests.ray_nodes import run_on_cluster

pytestmark = pytest.mark.timeout(900)
ROOT = Path(__file__).resolve().parents[3]
DASHBOARD = json.loads((ROOT / "docker" / "grafana" / "recording.json").read_text())
METRIC = r"ray_shareverse_\w+"


def queries() -> list[tuple[str, str]]:
    """Return each panel's expressions with what names their lines."""
    return [(target["expr"], target["legendFormat"]) for panel in DASHBOARD["panels"] for target in panel["targets"]]


def labels_asked_for() -> dict[str, set[str]]:
    """Return, by metric, the labels that the dashboard selects, groups or names lines by."""
    asked: dict[str, set[str]] = {}
    for expression, legend in queries():
        grouped = {name.strip() for names in re.findall(r"by \(([^)]*)\)", expression) for name in names.split(",")}
        for metric, selectors in re.findall(rf"({METRIC})\{{([^}}]*)\}}", expression):
            selected = set(re.findall(r"(\w+)=~?\"", selectors))
            asked.setdefault(metric, set()).update(selected | grouped | set(re.findall(r"\{\{(\w+)\}\}", legend)))
    (variable,) = [each for each in DASHBOARD["templating"]["list"] if each["name"] == "dataset"]
    metric, label = re.fullmatch(rf"label_values\(({METRIC}), (\w+)\)", variable["query"]["query"]).groups()
    asked[metric].add(label)
    return asked


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> dict[str, list]:
    """What a real Ray exports, samples by name."""
    done = run_on_cluster("tests.tasks.recording.exported_metrics", home=tmp_path_factory.mktemp("home"))
    samples: dict[str, list] = {}
    for family in text_string_to_metric_families(done.stdout):
        for sample in family.samples:
            samples.setdefault(sample.name, []).append(sample)
    return samples


def test_the_dashboard_asks_for_all_metrics_and_for_nothing_else():
    ours = {f"ray_{name}" for name in GAUGES} | {f"ray_{name}_total" for name in COUNTERS}
    assert set(labels_asked_for()) == ours
    assert not [expression for expression, _ in queries() if not re.search(METRIC + r"\{", expression)]


def test_every_metric_is_exported_with_the_labels_that_are_asked_for(exported):
    for metric, labels in labels_asked_for().items():
        assert exported.get(metric), f"{metric} is not exported"
        for sample in exported[metric]:
            assert labels <= sample.labels.keys(), sample


def test_what_is_exported_is_the_view(exported):
    def value(metric: str, **labels: str) -> float:
        found = [s.value for s in exported[metric] if labels.items() <= s.labels.items()]
        assert len(found) == 1, (metric, labels, found)
        return found[0]

    assert value("ray_shareverse_recordings", dataset="toy", town="A", type="crossing", kind="done") == 2
    assert value("ray_shareverse_recordings", town="A", type="crossing", kind="rejected") == 1
    assert value("ray_shareverse_clip_pairs", town="B", type="merging", kind="wanted") == 3
    assert value("ray_shareverse_recordings_per_hour") == 2
    assert value("ray_shareverse_left_seconds") == 3600
    assert value("ray_shareverse_servers", node="far", server="server2", kind="working") == 1
    assert value("ray_shareverse_servers", node="far", server="server2", kind="starting") == 0
    assert value("ray_shareverse_server_restarts", server="server2") == 2
    assert value("ray_shareverse_server_memory_bytes", server="server2", kind="video") == 5e9
    assert value("ray_shareverse_server_ends_total", node="far", server="server2", kind="died") == 1
