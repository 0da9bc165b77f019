"""Whether what docker-compose.yml names is there."""

import re
from collections.abc import Iterator
from typing import Any

import yaml

from scripts.deploy import dockerfile, schemas
from scripts.deploy.commands import programs
from scripts.deploy.documents import ROOT

FILE = ROOT / "docker-compose.yml"
GUIDE = ROOT / "deploy" / "README.md"
_VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)")
_PORT = re.compile(r"^\| `(\d+)` \|", re.MULTILINE)
_HOST = re.compile(r"(?:@|address=|http://)([a-z][\w-]*):(\d+)")
_FILE = re.compile(r"(?<![\w/])((?:orchestrator|configs|deploy)/[\w./-]+\.\w+)")


def read() -> dict[str, Any]:
    """docker-compose.yml, with what it merges, and its variables as they are written."""
    compose = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    assert isinstance(compose, dict)  # noqa: S101 - the schema says so too
    return compose


def problems() -> list[str]:
    """A line for each thing that the schema refuses or that leads nowhere."""
    compose = read()
    guide = GUIDE.read_text(encoding="utf-8")
    lines = schemas.compose_problems(compose)
    for name, service in compose["services"].items():
        lines += [f"{name}: {line}" for line in _service(service, compose)]
    for variable in sorted(set(_VARIABLE.findall(FILE.read_text(encoding="utf-8")))):
        if variable not in guide:
            lines.append(f"{variable} is not in {GUIDE.name}")
    lines += [f"prometheus: it is to ask {t}, which is no service" for t in _strangers(compose)]
    listed, there = set(_PORT.findall(guide)), published(compose)
    if listed != there:
        lines.append(f"ports are {sorted(there)}, and {sorted(listed)} in {GUIDE.name}")
    return lines


def published(compose: dict[str, Any]) -> set[str]:
    """Ports of this machine."""
    ports = [port for each in compose["services"].values() for port in each.get("ports", [])]
    return {port.split(":")[-2] for port in ports}


def _strangers(compose: dict[str, Any]) -> Iterator[str]:
    """Targets of Prometheus that are none of the services."""
    for mount in compose["services"]["prometheus"]["volumes"]:
        source = ROOT / mount.split(":")[0]
        if source.name != "prometheus.yml" or not source.is_file():
            continue
        for scrape in yaml.safe_load(source.read_text(encoding="utf-8"))["scrape_configs"]:
            for target in [t for each in scrape.get("static_configs", []) for t in each["targets"]]:
                if target.split(":")[0] not in (*compose["services"], "localhost"):
                    yield target


def _service(service: dict[str, Any], compose: dict[str, Any]) -> Iterator[str]:
    if (build := service.get("build")) is not None:
        if not (ROOT / build["dockerfile"]).is_file():
            yield f"no {build['dockerfile']}"
        if build["target"] not in dockerfile.stages():
            yield f"no target {build['target']}"
        if service["command"][0] not in programs():
            yield f"no program {service['command'][0]} in the image"
    for mount in service.get("volumes", []):
        source = mount.split(":")[0]
        if source.startswith("."):
            if not (ROOT / source).exists():
                yield f"no {source}"
        elif source not in compose["volumes"]:
            yield f"no volume {source}"
    yield from (f"no secret {n}" for n in service.get("secrets", []) if n not in compose["secrets"])
    for name in service.get("depends_on", {}):
        if "healthcheck" not in compose["services"].get(name, {}):
            yield f"it waits for {name}, which has no health check"
    for port in service.get("ports", []):
        if not port.startswith("127.0.0.1:"):
            yield f"port {port} is open to the network"
    if "healthcheck" not in service:
        yield "it has no health check"
        return
    if service.get("cap_drop") != ["ALL"]:
        yield "it keeps capabilities"
    text = str([service.get(each) for each in ("command", "environment", "healthcheck")])
    for host, _ in _HOST.findall(text):
        if host not in compose["services"]:
            yield f"there is no {host}"
    run = str([service.get("command"), service["healthcheck"]])
    for file in _FILE.findall(run):
        if not dockerfile.in_image(file):
            yield f"no {file} in the image"
