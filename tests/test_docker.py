"""docker/ agrees with the project, as far as that can be told without an engine."""

from __future__ import annotations

import re
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
COMPOSE_TEXT = (ROOT / "docker/compose.yaml").read_text()
COMPOSE = yaml.safe_load(COMPOSE_TEXT)
SERVICES = COMPOSE["services"]
DOCKERFILE = (ROOT / "docker/Dockerfile").read_text()


def pinned(package: str) -> str:
    """The tested version of a package."""
    return re.search(rf"^{package}==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]


def stages() -> dict[str, str]:
    """The Dockerfile's stages by name, each with the image it starts from."""
    return {name: image for image, name in re.findall(r"^FROM (\S+) AS (\S+)$", DOCKERFILE, re.MULTILINE)}


def test_ports_are_published_on_loopback_only():
    published = {name: service.get("ports", []) for name, service in SERVICES.items()}
    assert [*published["prefect"], *published["mlflow"]] == ["127.0.0.1:4200:4200", "127.0.0.1:5000:5000"]
    for port in (port for ports in published.values() for port in ports):
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port), port
    assert not any("network_mode" in service for service in SERVICES.values())


def test_images_are_those_of_the_tested_set():
    assert stages()["carla-server"] == f"carlasim/carla:{pinned('carla')}"
    assert re.fullmatch(r"python:3\.1[12]-slim", stages()["worker"])
    assert "grep '^torch==' constraints.txt" in DOCKERFILE
    assert 'pip install -e ".[team]" -c constraints.txt' in DOCKERFILE
    assert {service["image"] for service in SERVICES.values()} == {"shareverse", "shareverse-carla"}


def test_services_build_stages_that_exist():
    for name, service in SERVICES.items():
        build = service["build"]
        assert build["target"] in stages(), name
        assert (ROOT / "docker" / build["context"] / build["dockerfile"]).is_file()


def test_carla_needs_its_profile_and_a_gpu():
    assert [name for name, service in SERVICES.items() if "profiles" in service] == ["carla"]
    assert SERVICES["carla"]["profiles"] == ["gpu"]
    (device,) = SERVICES["carla"]["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])


def test_carla_lies_where_the_paper_deployment_looks():
    target = re.search(r"^COPY --from=carla-server \S+ \S+ (\S+)$", DOCKERFILE, re.MULTILINE)[1]
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    named = [d["parameters"]["carla_executable"] for d in deployments if "carla_executable" in d["parameters"]]
    assert set(named) == {f"{target}/CarlaUE4.sh"}


@pytest.mark.parametrize("stage", ["worker", "carla"])
def test_nothing_runs_as_root(stage):
    body = DOCKERFILE.split(f" AS {stage}\n")[1].split("\nFROM ")[0]
    assert re.findall(r"^USER (\S+)$", body, re.MULTILINE)[-1] == "shareverse"


def test_what_the_dockerfile_copies_reaches_the_build():
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert "flows" in copied
    for source in copied:
        assert (ROOT / source).exists(), source
        assert any(fnmatch(source, pattern) for pattern in kept), source


def test_servers_are_healthy_before_workers_start():
    for name in ("worker", "carla"):
        waits = SERVICES[name]["depends_on"]
        assert {(server, waits[server]["condition"]) for server in waits} == {
            ("prefect", "service_healthy"),
            ("mlflow", "service_healthy"),
        }
    assert all("healthcheck" in SERVICES[server] for server in ("prefect", "mlflow"))


def test_mlflow_lets_in_the_worker_and_the_published_address():
    (option,) = [word for word in SERVICES["mlflow"]["command"] if word.startswith("--allowed-hosts=")]
    allowed = option.removeprefix("--allowed-hosts=").split(",")
    assert SERVICES["worker"]["environment"]["MLFLOW_TRACKING_URI"].removeprefix("http://") in allowed
    assert SERVICES["mlflow"]["ports"][0].rsplit(":", 1)[0] in allowed


def test_state_outlives_a_container():
    for name, service in SERVICES.items():
        (volume,) = service["volumes"]
        source, target = volume.split(":")
        assert source in COMPOSE["volumes"], name
        assert target == "/state"
    assert "SHAREVERSE_HOME=/state" in DOCKERFILE


def test_prefect_starts_with_a_password_of_the_users_only():
    """No default: without the variable compose ends with the sentence after the question mark."""
    server = SERVICES["prefect"]["environment"]["PREFECT_SERVER_API_AUTH_STRING"]
    variable, sentence = re.fullmatch(r"\$\{(\w+):\?([^}]+)\}", server).groups()
    assert "docker/.env" in sentence
    assert re.search(rf'echo "{variable}=shareverse:\$\(openssl rand -hex 32\)" >> docker/\.env', COMPOSE_TEXT)
    for name in ("worker", "carla"):
        assert SERVICES[name]["environment"]["PREFECT_API_AUTH_STRING"] == server
    assert server not in str([service.get("command") for service in SERVICES.values()])
    ignored = subprocess.run(["git", "check-ignore", "-q", "docker/.env"], cwd=ROOT, check=False)
    assert ignored.returncode == 0 or not (ROOT / ".git").exists()


def test_prefect_runs_behind_the_gate():
    command = SERVICES["prefect"]["command"]
    assert command[:3] == ["python", "-m", "infra.stack.prefect_server"]
    (name,) = [word.removeprefix("--allow-host=") for word in command if word.startswith("--allow-host=")]
    assert SERVICES["worker"]["environment"]["PREFECT_API_URL"].startswith(f"http://{name}:4200/")


def test_the_workers_script_is_a_shell_script():
    subprocess.run(["sh", "-n", str(ROOT / "docker/worker.sh")], check=True)
    for service, pool in (("worker", "local"), ("carla", "cluster")):
        assert SERVICES[service]["command"] == ["sh", "docker/worker.sh", pool]
