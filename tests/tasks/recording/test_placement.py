"""What recorders ask Ray for, by what its nodes have, and what they make of what they get."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from infra.actor_pool import Needs
from infra.carla_servers import CarlaServerError, SimulatorSpec
from infra.carla_servers.launcher import ADAPTERS, EXECUTABLE, adapter_of
from tasks.recording.placement import recorder_needs
from tests.fake_ray import on_this_clock


def ray_of(*nodes: dict[str, float]) -> SimpleNamespace:
    return SimpleNamespace(nodes=lambda: [{"Alive": True, "Resources": node} for node in nodes])


@pytest.mark.parametrize(
    ("nodes", "servers", "needs"),
    [
        ([{"CPU": 2}], 2, Needs(cpus=1)),  # a local Ray: as many CPUs as servers
        ([{"CPU": 8}, {"CPU": 8}], 2, Needs(cpus=8)),
        ([{"CPU": 8}, {"CPU": 8}], 3, Needs(cpus=4)),
        ([{"CPU": 8}, {"CPU": 8}], "fit", Needs(cpus=1)),
        ([{"CPU": 2}], 5, Needs(cpus=1)),
        ([], 1, Needs(cpus=1)),
    ],
)
def test_embedded_servers_share_the_cpus(monkeypatch, nodes, servers, needs):
    on_this_clock(monkeypatch)
    assert recorder_needs(ray_of(*nodes), SimulatorSpec(), servers) == needs


@pytest.mark.parametrize(
    ("nodes", "servers", "needs"),
    [
        ([{"CPU": 8}], 2, Needs()),
        ([{"CPU": 8, "GPU": 1}], "fit", Needs(gpus=1)),
        ([{"CPU": 8, "GPU": 2}], 6, Needs(gpus=1 / 3)),
        ([{"CPU": 8, "GPU": 2}], 1, Needs(gpus=1)),
        ([{"CPU": 8, "carla": 4}], 6, Needs(carla=1)),
        ([{"CPU": 8, "GPU": 2, "carla": 4}, {"CPU": 8, "GPU": 8}], "fit", Needs(gpus=1 / 2, carla=1)),
        ([{"CPU": 8, "GPU": 2, "carla": 3}, {"CPU": 8, "GPU": 1, "carla": 4}], 3, Needs(gpus=1 / 4, carla=1)),
        ([{"CPU": 8, "GPU": 2, "carla": 1}], 1, Needs(gpus=1, carla=1)),
        ([{"CPU": 8, "GPU": 2, "carla": 2}, {"CPU": 8, "carla": 2}], 4, Needs(carla=1)),
    ],
)
def test_carla_gets_what_nodes_declare_and_a_share_of_a_gpu(monkeypatch, nodes, servers, needs):
    on_this_clock(monkeypatch)
    found = recorder_needs(ray_of(*nodes), SimulatorSpec("carla"), servers)
    assert found == needs
    declared = sum(int(node.get("carla", 0)) for node in nodes)
    assert not declared or found.room(nodes) == declared  # as many as the nodes say


def test_the_adapter_is_what_the_machine_says(monkeypatch):
    monkeypatch.setenv(ADAPTERS, "0:0, 1:2")
    assert [adapter_of(gpu) for gpu in range(3)] == [0, 2, 2]
    monkeypatch.delenv(ADAPTERS)
    assert adapter_of(1) == 1
    for damaged in ("1", "a:b", "1:2:3"):
        monkeypatch.setenv(ADAPTERS, damaged)
        with pytest.raises(CarlaServerError, match=f"{ADAPTERS} is '{damaged}': give pairs GPU:ADAPTER"):
            adapter_of(1)


def test_the_executable_is_what_the_machine_says_unless_the_flow_does(monkeypatch):
    monkeypatch.setenv(EXECUTABLE, "/bin/true")
    assert SimulatorSpec("carla").command(2000, None)[0] == "/bin/true"
    assert SimulatorSpec("carla", "/bin/sh").command(2000, None)[0] == "/bin/sh"
