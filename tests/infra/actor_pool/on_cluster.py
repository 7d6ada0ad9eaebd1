"""`python -m tests.infra.actor_pool.on_cluster CASE`: a pool on real raylets; ends with 0 when it did what it should.

faults: actors that die and hang, items that fail, needs that no node has. nodes: one joins, one is lost.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from typing import Any

import pytest

from infra.actor_pool import ActorPool, Answer, ItemQueue, ItemTimeout, Limits, Needs, NoActor, PoolActor, slot
from infra.ray_cluster import ray_cluster
from tests.ray_nodes import add_node, cluster_without_cpus, lose_node

LIMITS = Limits(start_s=120, attempts=2, actors_lost=2)


class Worker(PoolActor):
    """Does what its item says; "done" comes with the node's id."""

    def work(self, item: str) -> Answer:
        if item == "die":
            os._exit(1)
        if item == "hang":
            threading.Event().wait()
        if item == "raise":
            raise KeyError("weather")
        if item.startswith("a second"):
            time.sleep(1.0)  # the work itself: a node that is lost has an item in hand
        return "done", self.placed()


def make_pool(ray: Any, needs: Needs, limit_s: float = 120.0) -> ActorPool[str]:
    timeout = ItemTimeout(len, setup_s=0, unknown_rate_s=0, limit_s=limit_s)
    return ActorPool(
        ray, "worker", lambda options, name: ray.remote(**options)(Worker).remote(), "fit", needs, LIMITS, timeout,
        logging.getLogger("workers"),
    )  # fmt: skip


def faults(cluster: Any) -> None:
    add_node(cluster, carla=2)
    items = ["die", "hang", "raise", *(f"item {number}" for number in range(5))]
    with ray_cluster() as ray, make_pool(ray, Needs(carla=1), limit_s=10.0) as pool:
        ended = {outcome.item: outcome.kind for outcome in pool.outcomes(ItemQueue(items, key=str))}
        assert [item for item in items if ended[item] == "failed"] == ["die", "hang", "raise"], ended
        assert all(ended[item] == "done" for item in items[3:]), ended
        assert pool.losses == {"died": 2, "past their deadline": 2}, pool.losses
        slot.PLACEMENT_WARNING_S, slot.MAX_PLACEMENT_S = 2.0, 4.0
        with (
            make_pool(ray, Needs(cpus=64)) as too_large,
            pytest.raises(NoActor, match=r"it needs 64 CPU, and Ray's nodes have 2 CPU .*no node alone holds it"),
        ):
            list(too_large.outcomes(ItemQueue(["item"], key=str)))


def nodes(cluster: Any) -> None:
    first, second = add_node(cluster, carla=1), None
    lost = False
    queue = ItemQueue([f"a second, {number}" for number in range(100)], key=str)
    done: dict[str, str] = {}
    with ray_cluster() as ray, make_pool(ray, Needs(carla=1)) as pool:
        for outcome in pool.outcomes(queue):
            assert outcome.kind != "failed", outcome
            if outcome.kind == "done":
                done[outcome.item] = outcome.value
            if len(done) == 2 and second is None:
                second = add_node(cluster, carla=2)
            if second is not None and second.node_id in done.values():
                if not lost:
                    lose_node(cluster, first)
                    lost = True
                while len(queue.remaining) > 4:  # enough was seen
                    done[queue.take(None)] = ""
        assert len(done) == 100
        assert sum(pool.losses.values()) <= 1, pool.losses  # the item in hand


def main() -> None:
    logging.basicConfig(level=logging.INFO)
    with cluster_without_cpus() as cluster:
        {"faults": faults, "nodes": nodes}[sys.argv[1]](cluster)


if __name__ == "__main__":
    main()
