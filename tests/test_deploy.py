"""The files of deploy/ name what is there: commands, modules, pools, variables, ports, files."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from packaging.specifiers import SpecifierSet

from flows.orchestration import local_server
from tests.docs.test_commands import refused
from tests.support.project_files import PACKAGES, ROOT, project_files, pyproject

DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
MANIFESTS: dict[str, dict[str, Any]] = {
    f"{found['kind']}/{found['metadata']['name']}": found
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    for found in yaml.safe_load_all(path.read_text(encoding="utf-8"))
    if found["kind"] != "Kustomization"
}
KUSTOMIZATION = yaml.safe_load((DEPLOY / "kubernetes" / "kustomization.yaml").read_text())
CONTAINERS: dict[str, dict[str, Any]] = {
    name: found["spec"]["template"]["spec"]["containers"][0]
    for name, found in MANIFESTS.items()
    if "template" in found.get("spec", {})
}
OURS = {name for name, service in SERVICES.items() if service["image"].startswith("vigorl:")}
COMMANDS: list[list[str]] = [
    *(SERVICES[name]["command"] for name in sorted(OURS)),
    *(container["command"] for container in CONTAINERS.values()),
]
# Prefect is held to its texts: importing it takes seconds.
PREFECT = Path(str(importlib.util.find_spec("prefect").origin)).parent  # type: ignore[union-attr]


def option(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


# ---- images -------------------------------------------------------------------------------------


def test_images_are_pinned_to_a_version() -> None:
    images = [re.search(r"^FROM (\S+)$", DOCKERFILE, re.MULTILINE)[1]]  # type: ignore[index]
    images += [service["image"] for name, service in SERVICES.items() if name not in OURS]
    for image in images:
        assert re.search(r":\w*[.]?[0-9]+[.-][0-9]+[.-][0-9]*", image), image
    assert {container["image"] for container in CONTAINERS.values()} == {"vigorl"}
    (placed,) = KUSTOMIZATION["images"]
    assert (placed["name"], placed["newTag"]) == ("vigorl", pyproject()["project"]["version"])


def test_the_image_has_a_python_and_a_vllm_that_the_project_takes() -> None:
    project = pyproject()["project"]
    python = re.search(r"^FROM python:([\d.]+)", DOCKERFILE, re.MULTILINE)[1]  # type: ignore[index]
    assert python in SpecifierSet(project["requires-python"])
    (vllm,) = project["optional-dependencies"]["gpu"]
    tag = SERVICES["teacher"]["image"].rpartition(":v")[2]
    assert tag in SpecifierSet(vllm.removeprefix("vllm"))


def test_the_image_holds_every_package_and_runs_as_nobody_in_particular() -> None:
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    taken = {line[1:] for line in ignored if line.startswith("!")}
    assert {*PACKAGES, "pyproject.toml", "requirements.lock", "prefect.yaml"} <= taken
    copied = re.search(r"^COPY (.+) \./$", DOCKERFILE, re.MULTILINE)[1].split()  # type: ignore[index]
    assert all((ROOT / name).exists() for name in taken) and set(copied) <= taken
    assert (
        re.search(r"^ARG EXTRAS=(\w+)$", DOCKERFILE, re.MULTILINE)[1]
        in (  # type: ignore[index]
            pyproject()["project"]["optional-dependencies"]
        )
    )
    assert "\nUSER 1000\n" in DOCKERFILE and "useradd --create-home --uid 1000" in DOCKERFILE
    for name, found in MANIFESTS.items():
        if name in CONTAINERS:
            context = found["spec"]["template"]["spec"]["securityContext"]
            assert context["runAsNonRoot"] and context["runAsUser"] == 1000, name


def test_processes_in_the_image_are_told_what_vigorl_up_tells_its_own(tmp_path: Path) -> None:
    env = local_server._environment(tmp_path, "http://127.0.0.1:1", str(tmp_path))
    told = dict(re.findall(r"^(?:ENV|   ) ([A-Z_]+)=(\S+?)(?: \\)?$", DOCKERFILE, re.MULTILINE))
    for name in (
        "DO_NOT_TRACK", "HF_HUB_OFFLINE", "PREFECT_SERVER_ANALYTICS_ENABLED",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY",
    ):  # fmt: skip
        assert told[name] == env[name]


# ---- commands -----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_commands_are_accepted(command: list[str]) -> None:
    match command:
        case ["vigorl", *words]:
            from flows.cli.app import app

            assert not refused(typer.main.get_command(app), words)
        case ["prefect", group, verb, *words]:
            text = (PREFECT / "cli" / f"{group}.py").read_text(encoding="utf-8")
            assert re.search(rf"def {verb}\(", text)
            options = (word for word in words if word.startswith("-"))
            assert all(f'"{word}"' in text for word in options)
        case ["python", "-m", module]:
            assert importlib.util.find_spec(module)
        case _:
            pytest.fail("of no program that is known here")


def test_workers_serve_a_pool_that_deployments_are_in() -> None:
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    pools = {deployment["work_pool"]["name"] for deployment in deployments}
    served = {option(command, "--pool") for command in COMMANDS if "worker" in command}
    assert served == {local_server.WORKERS["worker"]} <= pools


def test_the_served_teacher_is_started_as_vigorl_serve_would() -> None:
    from flows.settings import ServeSettings
    from flows.teachers.vllm_command import flags

    model = SERVICES["teacher"]["command"][1]
    settings = ServeSettings.checked(model=model, host="0.0.0.0")
    assert SERVICES["teacher"]["command"] == flags(settings, model, 8000)


# ---- variables, ports, names --------------------------------------------------------------------


def variables() -> Iterator[str]:
    """Names of environment variables that our own containers are given."""
    for name in OURS:
        yield from SERVICES[name].get("environment", {})
    yield from MANIFESTS["ConfigMap/vigorl"]["data"]
    for container in CONTAINERS.values():
        yield from (given["name"] for given in container.get("env", ()))
    yield from re.findall(r"^(?:ENV|   ) ([A-Z_]+)=", DOCKERFILE, re.MULTILINE)


def test_environment_variables_are_ones_that_somebody_reads() -> None:
    settings = (PREFECT / "settings").rglob("*.py")
    prefect = "\n".join(path.read_text(encoding="utf-8").upper() for path in settings)
    code = "\n".join(path.read_text(encoding="utf-8") for path in project_files())
    others = {
        "PYTHONUNBUFFERED", "PREFECT_SERVER_ANALYTICS_ENABLED", "DO_NOT_TRACK", "HF_HUB_OFFLINE",
        "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "NVIDIA_VISIBLE_DEVICES",
        "NVIDIA_DRIVER_CAPABILITIES",
    }  # fmt: skip
    for name in set(variables()) - others:
        assert name in prefect if name.startswith("PREFECT_") else f'"{name}"' in code, name


def test_what_compose_asks_for_is_in_the_example_and_has_no_value_there() -> None:
    asked = set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text()))
    example = (DEPLOY / ".env.example").read_text()
    assert dict(re.findall(r"^(\w+)=(.*)$", example, re.MULTILINE)) == dict.fromkeys(asked, "")


def test_addresses_lead_to_the_service_and_the_port_that_listens() -> None:
    server, store = SERVICES["prefect"], SERVICES["minio"]
    port = option(server["command"], "--port")
    assert SERVICES["worker"]["environment"]["PREFECT_API_URL"] == f"http://prefect:{port}/api"
    assert server["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert f"127.0.0.1:{port}/api/health" in server["healthcheck"]["test"][-1]
    assert SERVICES["worker"]["environment"]["AWS_ENDPOINT_URL"] == "http://minio:9000" and store
    assert "@postgres:5432/prefect" in server["environment"]["PREFECT_API_DATABASE_CONNECTION_URL"]
    bucket = SERVICES["worker"]["environment"]["VIGORL_HOME"].removeprefix("s3://").split("/")[0]
    assert SERVICES["bucket"]["command"][-1] == f"store/{bucket}"

    config = MANIFESTS["ConfigMap/vigorl"]["data"]
    (exposed,) = MANIFESTS["Service/prefect"]["spec"]["ports"]
    assert config["PREFECT_API_URL"] == f"http://prefect:{exposed['port']}/api"
    assert option(CONTAINERS["Deployment/prefect"]["command"], "--port") == str(exposed["port"])
    for container in CONTAINERS.values():
        ports = {given["containerPort"] for given in container.get("ports", ())}
        probes = [
            container[name] for name in ("readinessProbe", "livenessProbe") if name in container
        ]
        assert {probe["httpGet"]["port"] for probe in probes} == ports
    (health,) = CONTAINERS["StatefulSet/worker"]["ports"]
    webserver = (PREFECT / "settings" / "models" / "worker.py").read_text(encoding="utf-8")
    assert f"default={health['containerPort']}," in webserver


def test_manifests_refer_to_each_other_and_to_secrets_that_the_docs_make() -> None:
    listed = set(KUSTOMIZATION["resources"])
    there = {path.name for path in (DEPLOY / "kubernetes").glob("*.yaml")}
    assert listed == there - {"kustomization.yaml"}
    page = (ROOT / "docs" / "deploying.md").read_text(encoding="utf-8")
    made = set(re.findall(r"create secret generic ([\w-]+)", page))
    used = set()
    for container in CONTAINERS.values():
        for source in container.get("envFrom", ()):
            if "configMapRef" in source:
                assert f"ConfigMap/{source['configMapRef']['name']}" in MANIFESTS
            else:
                used.add(source["secretRef"]["name"])
        used |= {given["valueFrom"]["secretKeyRef"]["name"]
                 for given in container.get("env", ()) if "valueFrom" in given}  # fmt: skip
    assert used == made
    assert not [name for name in MANIFESTS if name.startswith("Secret/")]
    worker = MANIFESTS["StatefulSet/worker"]["spec"]
    assert f"Service/{worker['serviceName']}" in MANIFESTS
