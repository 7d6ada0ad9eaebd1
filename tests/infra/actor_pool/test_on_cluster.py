"""The pool on real raylets."""

from __future__ import annotations

import pytest

from tests.ray_nodes import run_on_cluster

pytestmark = pytest.mark.timeout(900)
MODULE = "tests.infra.actor_pool.on_cluster"


@pytest.mark.slow
def test_actors_that_die_and_hang_and_items_that_fail_end_as_they_should(tmp_path):
    run_on_cluster(MODULE, "faults", home=tmp_path)


@pytest.mark.slow
def test_a_node_that_joins_is_used_and_a_lost_one_costs_what_is_in_hand(tmp_path):
    run_on_cluster(MODULE, "nodes", home=tmp_path)
