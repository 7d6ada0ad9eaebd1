"""What a recorder needs of a node, asked for by the driver, and what it finds there, asked by the recorder itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from infra.actor_pool import Needs, assigned_cores, await_nodes
from infra.carla_servers import CarlaServerError, SimulatorSpec


def recorder_needs(ray: Any, spec: SimulatorSpec, servers: int | Literal["fit"]) -> Needs:
    """Return what each of `servers` recorders needs, by what Ray's nodes have now.

    An embedded server gets as many CPUs as let all of them fit, one for "fit". CARLA gets one, `carla` where nodes
    declare it, and the share of a GPU that lets all fit, a whole one where nothing says how many.
    """
    total = 1 if servers == "fit" else servers
    nodes = await_nodes(ray, total)
    if spec.kind != "carla":
        return embedded_needs(nodes, servers)
    carla = int(any(node.get("carla") for node in nodes))
    hosts = [node for node in nodes if node.get("carla") or not carla]
    gpus = [math.floor(node.get("GPU", 0)) for node in hosts]
    if carla:
        per_gpu = max(math.ceil(node["carla"] / (count or math.inf)) for count, node in zip(gpus, hosts, strict=True))
        return Needs(gpus=1 / max(per_gpu, 1) if all(gpus) else 0, carla=1)
    per_gpu = 1 if servers == "fit" else math.ceil(servers / max(sum(gpus), 1))
    return Needs(gpus=1 / per_gpu if any(gpus) else 0)


def embedded_needs(nodes: Sequence[dict[str, float]], servers: int | Literal["fit"]) -> Needs:
    """Return the most CPUs that each of so many servers can have, at least one."""
    cpus = int(max((node.get("CPU", 0) for node in nodes), default=0))
    while servers != "fit" and cpus > 1 and Needs(cpus=cpus).room(nodes) < servers:
        cpus -= 1
    return Needs(cpus=max(1, cpus if servers != "fit" else 1))


def with_threads(spec: SimulatorSpec) -> SimulatorSpec:
    """Return the spec with this actor's share of its node's cores as the embedded server's threads."""
    if spec.kind != "embedded" or "--threads" in spec.options:
        return spec
    return replace(spec, options=(*spec.options, "--threads", str(assigned_cores())))


def assigned_gpu(spec: SimulatorSpec) -> int | None:
    """Return the GPU of its node that Ray gave this actor; None for the embedded server or without GPUs.

    CarlaServerError for one that is known by a name only.
    """
    if spec.kind != "carla":
        return None
    import ray

    gpus = ray.get_gpu_ids()
    if gpus and not str(gpus[0]).isdecimal():
        raise CarlaServerError(f"GPU {gpus[0]} has no number: start Ray where CUDA_VISIBLE_DEVICES lists numbers.")
    return int(gpus[0]) if gpus else None
