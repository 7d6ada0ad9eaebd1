"""How far the recording is, as Prometheus metrics that Ray exports at each node's own endpoint.

Ray puts `ray_` before the names and `_total` behind the counter's. Gauges that are not set for half a minute leave the
endpoint, so what a finished run said does not stay. `docker/grafana/recording.json` shows them.
"""

from __future__ import annotations

from infra.actor_pool import ActorEnd, Phase
from tasks.recording.progress import Progress

GAUGES = {
    "shareverse_recordings": (
        "Recordings of a data set's plan; kind: wanted, done, failed, rejected, quarantined.",
        ("dataset", "town", "type", "kind"),
    ),
    "shareverse_clip_pairs": ("Clip pairs of recordings; kind: wanted, done.", ("dataset", "town", "type", "kind")),
    "shareverse_recordings_per_hour": ("Recordings an hour in this run.", ("dataset",)),
    "shareverse_left_seconds": ("Time until all is recorded, at this run's rate.", ("dataset",)),
    "shareverse_clip_pairs_per_server_hour": ("Clip pairs an hour and server in this run.", ("dataset",)),
    "shareverse_servers": (
        "1 for what a server is doing, else 0; kind: waiting, placing, starting, ready, working, stopping, retired.",
        ("dataset", "node", "server", "kind"),
    ),
    "shareverse_server_restarts": ("Servers that came after the first in this place.", ("dataset", "node", "server")),
    "shareverse_server_memory_bytes": (
        "What a server, its scripts and its client hold; kind: host, video.",
        ("dataset", "node", "server", "kind"),
    ),
}
"""Name -> what it says, and its labels."""
COUNTERS = {
    "shareverse_server_ends": (
        "Servers that ended or did not start; kind: why, as in the ledger.",
        ("dataset", "node", "server", "kind"),
    ),
}


class RecordingMetrics:
    """Sets the metrics; for use while Ray is connected."""

    def __init__(self, dataset: str) -> None:
        from ray.util.metrics import Counter, Gauge

        self.gauges = {name: Gauge(name, text, labels) for name, (text, labels) in GAUGES.items()}
        self.counters = {name: Counter(name, text, labels) for name, (text, labels) in COUNTERS.items()}
        self.dataset = dataset

    def set(self, name: str, value: float | None, **labels: str) -> None:
        """Set a gauge of GAUGES, with all its labels but `dataset`; what is not known is not set."""
        if value is not None:
            self.gauges[f"shareverse_{name}"].set(value, {"dataset": self.dataset, **labels})

    def show(self, progress: Progress) -> None:
        for (town, kind), cell in progress.cells.items():
            place = {"town": town, "type": kind}
            lost = {state: cell.lost[state] for state in ("failed", "rejected", "quarantined")}
            for what, count in {"wanted": cell.wanted, "done": cell.done, **lost}.items():
                self.set("recordings", count, **place, kind=what)
            self.set("clip_pairs", cell.pairs_wanted, **place, kind="wanted")
            self.set("clip_pairs", cell.pairs, **place, kind="done")
        self.set("recordings_per_hour", progress.per_hour)
        self.set("left_seconds", progress.left_s)
        self.set("clip_pairs_per_server_hour", progress.pairs_per_server_hour)
        for server in progress.run.servers if progress.run else ():
            place = {"node": server.node, "server": server.name}
            for phase in Phase:
                self.set("servers", server.phase == phase.value, **place, kind=phase.value)
            self.set("server_restarts", server.restarts, **place)
            self.set("server_memory_bytes", server.usage.memory_bytes, **place, kind="host")
            self.set("server_memory_bytes", server.usage.gpu_memory_bytes, **place, kind="video")

    def count_end(self, end: ActorEnd) -> None:
        labels = {"dataset": self.dataset, "node": end.node, "server": end.actor, "kind": end.kind}
        self.counters["shareverse_server_ends"].inc(1, labels)
