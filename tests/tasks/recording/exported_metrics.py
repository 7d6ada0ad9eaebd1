"""`python -m tests.tasks.recording.exported_metrics`: prints what Ray's endpoint exports of a recording's metrics."""

from __future__ import annotations

import os
import time
from urllib.request import urlopen

from infra.actor_pool import ActorEnd
from infra.ray_cluster import ray_cluster
from tasks.recording.metrics import RecordingMetrics
from tasks.recording.progress import progress
from tests.tasks.recording.test_progress import EVENTS, PLAN, RUN, SPARES, STATES

LIMIT_S = 120.0


def main() -> None:
    os.environ |= {"RAY_metrics_report_interval_ms": "1000"}
    with ray_cluster(num_cpus=1) as ray:
        metrics = RecordingMetrics("toy")
        (node,) = ray.nodes()
        address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        view = progress(PLAN, SPARES, STATES, RUN, EVENTS)
        metrics.show(view)
        metrics.count_end(ActorEnd("server2", "far", "died", "server2 died."))
        text, deadline = "", time.monotonic() + LIMIT_S
        while text.count("ray_shareverse_server_ends") < 3:  # two lines that say what it is, one with a value
            assert time.monotonic() < deadline, text
            metrics.show(view)
            time.sleep(0.5)  # Ray exports once a second
            try:
                text = urlopen(address, timeout=5).read().decode()
            except OSError:  # the agent that answers there starts after Ray
                continue
    print(text)


if __name__ == "__main__":
    main()
