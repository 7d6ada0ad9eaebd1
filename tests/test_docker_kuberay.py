"""docker/kuberay/collect.yaml is valid by KubeRay's published schema and agrees with the project."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from flows.batch import find_deployment

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = list(yaml.safe_load_all((ROOT / "docker/kuberay/collect.yaml").read_text()))
JOB = next(document for document in DOCUMENTS if document["kind"] == "RayJob")
CLUSTER = JOB["spec"]["rayClusterSpec"]
GROUPS = [CLUSTER["headGroupSpec"], *CLUSTER["workerGroupSpecs"]]
DOCKERFILE = (ROOT / "docker/Dockerfile").read_text()


def schema() -> dict[str, Any]:
    """KubeRay's schema of a RayJob, in which unknown fields are errors, as `kubectl apply --validate=strict` has it."""
    text = (ROOT / "tests/assets/kuberay/rayjob.schema.json").read_text()

    def strict(node: dict[str, Any]) -> dict[str, Any]:
        closed = "properties" in node and "x-kubernetes-preserve-unknown-fields" not in node
        return node | {"additionalProperties": False} if closed and node.get("type") == "object" else node

    return json.loads(text, object_hook=strict)


def containers() -> Iterator[dict[str, Any]]:
    """Ray's container of every group."""
    for group in GROUPS:
        (container,) = group["template"]["spec"]["containers"]
        yield container


def test_the_job_is_valid_by_the_published_schema():
    jsonschema.validate(JOB, schema())


@pytest.mark.parametrize(
    ("place", "key", "value"),
    [
        (JOB["spec"], "entryPoint", "python"),
        (CLUSTER["workerGroupSpecs"][0], "replicas", "four"),
        (CLUSTER["workerGroupSpecs"][0]["rayStartParams"], "resources", {"carla": 2}),
        (GROUPS[1]["template"]["spec"]["containers"][0]["resources"]["limits"], "cpu", [8]),
    ],
)
def test_the_schema_notices_mistakes(monkeypatch, place, key, value):
    monkeypatch.setitem(place, key, value)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(JOB, schema())


def test_the_flow_and_its_parameters_exist():
    python, module, name, deployment, *options = shlex.split(JOB["spec"]["entrypoint"])
    assert (python, module, name) == ("python", "-m", "flows.batch")
    assert find_deployment(deployment)["parameters"]["simulator"] == "carla"
    assert options[::2] == ["--param"] * (len(options) // 2)


def test_carla_is_declared_on_gpu_nodes_only():
    head, group = GROUPS
    (words,) = shlex.split(group["rayStartParams"]["resources"])  # KubeRay writes it into a shell's command line
    assert json.loads(words) == {"carla": 2}
    assert "resources" not in head["rayStartParams"]
    amounts = [container["resources"]["limits"] for container in containers()]
    assert [amount.get("nvidia.com/gpu") for amount in amounts] == [None, 1]


def test_images_user_and_versions_are_the_projects():
    assert [container["image"] for container in containers()] == ["REGISTRY/shareverse", "REGISTRY/shareverse-carla"]
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert CLUSTER["rayVersion"] == pinned[1]
    for group in GROUPS:
        assert group["template"]["spec"]["securityContext"]["runAsUser"] == 1000
    assert "useradd --create-home --uid 1000 shareverse" in DOCKERFILE


def test_state_is_one_volume_that_all_pods_see():
    claim = next(document for document in DOCUMENTS if document["kind"] == "PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for group, container in zip(GROUPS, containers(), strict=True):
        volumes = {volume["name"]: volume for volume in group["template"]["spec"]["volumes"]}
        places = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
        assert places["/state"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        assert {"name": "SHAREVERSE_HOME", "value": "/state"} in container["env"]


def test_ray_asks_for_a_token_and_only_pods_of_the_cluster_reach_carla():
    assert CLUSTER["authOptions"] == {"mode": "token", "secretName": "shareverse-ray"}
    policy = next(document for document in DOCUMENTS if document["kind"] == "NetworkPolicy")["spec"]
    own = policy["podSelector"]
    for group in GROUPS:
        assert group["template"]["metadata"]["labels"] == own["matchLabels"]
    from_own, dashboard = policy["ingress"]
    assert from_own == {"from": [{"podSelector": own}]}
    assert [port["port"] for port in dashboard["ports"]] == [8265]
