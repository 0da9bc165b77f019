"""Whether what pods run is in the image, and reads files that are mounted where it looks."""

import shlex
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from scripts.deploy.dockerfile import WORKDIR, in_image
from scripts.deploy.documents import ROOT, Document, Pod, named, of_kind, pods
from scripts.deploy.references import documented_secrets

_OTHERS = {"python", "ray", "sh", "bash", "redis-server", "redis-cli"}
"""Of Python, of the locks' packages, of Redis's image."""


def problems(found: Sequence[Document]) -> list[str]:
    """A line for each program or file that is not there."""
    lines: list[str] = []
    for pod in pods(found):
        for container in pod.containers:
            program = (container.get("command") or [None])[0]
            if program is not None and program not in programs():
                lines.append(f"{pod.where}: no program {program}")
            for variable in container.get("env", []):
                if variable["name"].endswith("_FILE"):
                    lines += [
                        f"{pod.where}: {line}" for line in _unmounted(pod, variable["value"], found)
                    ]
    for job in of_kind(found, "RayJob"):
        lines += [f"{named(job)}: {line}" for line in _entry_problems(job, found)]
    return lines


def programs() -> set[str]:
    """What the images have."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {*_OTHERS, *project["scripts"]}


def entry(job: Document) -> tuple[str, str, list[str]]:
    """Of a RayJob: the script of its entrypoint, the config and the words over it."""
    program, script, config, *words = shlex.split(job["spec"]["entrypoint"])
    if program != "python":
        raise ValueError(f"{named(job)}: its entrypoint is not of python")
    return script, config, words


def mounted_config(job: Document, found: Sequence[Document]) -> str:
    """The text of the config that a RayJob's entrypoint reads."""
    _, config, _ = entry(job)
    head = next(pod for pod in pods([job]) if pod.where.endswith("head"))
    volume, key = _mounted(head, config)
    name = volume.get("configMap", {}).get("name")
    maps = {each["metadata"]["name"]: each["data"] for each in of_kind(found, "ConfigMap")}
    return str(maps[name][key])


def _entry_problems(job: Document, found: Sequence[Document]) -> Iterator[str]:
    script, _, words = entry(job)
    path = PurePosixPath(script)
    if not path.is_relative_to(WORKDIR) or not in_image(str(path.relative_to(WORKDIR))):
        yield f"no {script} in the image"
    try:
        mounted_config(job, found)
    except KeyError as error:
        yield f"its config is in no ConfigMap: {error}"
    output = [word.partition("=")[2] for word in words if word.startswith("output=")]
    for pod in pods([job])[1:]:
        places = [each["mountPath"] for c in pod.containers for each in c["volumeMounts"]]
        if len(output) != 1 or output[0] not in places:
            yield f"output is {output}, and {pod.where} mounts {places}"
    if job["spec"]["rayClusterSpec"]["rayVersion"] != _locked("ray"):
        yield f"rayVersion is not {_locked('ray')}"


def _unmounted(pod: Pod, path: str, found: Sequence[Document]) -> Iterator[str]:
    try:
        volume, key = _mounted(pod, path)
    except KeyError:
        yield f"nothing is mounted at {path}"
        return
    name = volume.get("secret", {}).get("secretName")
    if key not in documented_secrets().get(name, ()):
        yield f"{path} is no key of a Secret that is made by a documented command"


def _mounted(pod: Pod, path: str) -> tuple[dict[str, Any], str]:
    """The volume that a path is in, and what it is called there. Raises KeyError."""
    volumes = {each["name"]: each for each in pod.spec.get("volumes", [])}
    for container in pod.containers:
        for mount in container.get("volumeMounts", []):
            if PurePosixPath(path).parent == PurePosixPath(mount["mountPath"]):
                return volumes[mount["name"]], PurePosixPath(path).name
    raise KeyError(path)


def _locked(package: str) -> str:
    """The version in the lock."""
    lock = (ROOT / "requirements" / "cpu.lock").read_text(encoding="utf-8")
    line = next(line for line in lock.splitlines() if line.startswith(f"{package}=="))
    return line.split()[0].partition("==")[2]
