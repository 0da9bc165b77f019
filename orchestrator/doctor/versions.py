"""Versions of Python and of the packages, against what pyproject.toml and the lock pin.

They are read from the packages' metadata: nothing is imported.
"""

import platform
import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from orchestrator.doctor.finding import Finding
from orchestrator.doctor.subject import Subject

ROOT = Path(__file__).resolve().parent.parent.parent
_SHOWN = ("torch", "ray", "transformers", "redis", "grpcio")
_LOCKED = re.compile(r"^[A-Za-z0-9._-]+==[^\\\n]+", re.MULTILINE)
_NAMED = 4
_SETUP = "run make setup, or take an image of this version"

Installed = Callable[[str], str | None]
"""The version of a package; None where it is not there."""


def check_versions(subject: Subject) -> Iterator[Finding]:
    """Python, every package that we ask for, vLLM, and the rest as it is locked."""
    project = declared()
    yield python_version(project["requires-python"])
    yield packages(project["dependencies"], installed)
    extras = project["optional-dependencies"]
    yield vllm(extras["cpu"] + extras["gpu"], installed, needed=subject.samples)
    build = "gpu" if installed("vllm") else "cpu"
    lock = ROOT / "requirements" / f"{build}.lock"
    if lock.is_file():
        yield as_locked(lock, installed)


def installed(name: str) -> str | None:
    """The version of a package here."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def declared() -> dict[str, Any]:
    """`[project]` of pyproject.toml; where only the package is installed, of its metadata."""
    file = ROOT / "pyproject.toml"
    if file.is_file():
        found: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        return found
    wanted = [Requirement(line) for line in metadata.requires("pairloop") or []]
    extras: dict[str, list[str]] = {"cpu": [], "gpu": []}
    for name, lines in extras.items():
        lines += [str(r) for r in wanted if r.marker and r.marker.evaluate({"extra": name})]
    return {
        "requires-python": metadata.metadata("pairloop")["Requires-Python"],
        "dependencies": [str(each) for each in wanted if not each.marker],
        "optional-dependencies": extras,
    }


def python_version(wanted: str, version: str = platform.python_version()) -> Finding:
    """Python's own."""
    if version in SpecifierSet(wanted, prereleases=True):
        return Finding("python", "ok", f"{version} ({sys.executable})")
    return Finding("python", "problem", f"{version}, and {wanted} is needed", _SETUP)


def packages(wanted: Sequence[str], version_of: Installed) -> Finding:
    """Everything that pyproject.toml asks for by name."""
    wrong = [text for line in wanted if (text := _wrong(Requirement(line), version_of))]
    if wrong:
        return Finding("packages", "problem", _listed(wrong), _SETUP)
    shown = ", ".join(f"{name} {version_of(name)}" for name in _SHOWN)
    return Finding("packages", "ok", f"{len(wanted)} as pyproject.toml asks for: {shown}")


def vllm(wanted: Sequence[str], version_of: Installed, *, needed: bool) -> Finding:
    """One of its builds."""
    builds = [Requirement(line) for line in wanted]
    there = [each for each in builds if version_of(each.name)]
    wrong = [text for each in there if (text := _wrong(each, version_of))]
    if wrong:
        return Finding("vllm", "problem", _listed(wrong), _SETUP)
    if there:
        shown = ", ".join(f"{each.name} {version_of(each.name)}" for each in there)
        return Finding("vllm", "ok", shown)
    names = " or ".join(each.name for each in builds)
    if not needed:
        return Finding("vllm", "ok", "not installed, and this config samples nothing")
    return Finding("vllm", "problem", f"not installed: {names} is needed to sample", _SETUP)


def as_locked(lock: Path, version_of: Installed) -> Finding:
    """Every package of a lock file that is installed."""
    lines = map(Requirement, _LOCKED.findall(lock.read_text(encoding="utf-8")))
    locked = [each for each in lines if not each.marker or each.marker.evaluate()]
    other = [
        text for each in locked if version_of(each.name) and (text := _wrong(each, version_of))
    ]
    name = f"requirements/{lock.name}"
    if other:
        text = f"{len(other)} of {len(locked)} packages are not as {name} has them: "
        return Finding("lock", "warning", text + _listed(other), _SETUP)
    return Finding("lock", "ok", f"as {name} has it: {len(locked)} packages")


def _wrong(wanted: Requirement, version_of: Installed) -> str:
    version = version_of(canonicalize_name(wanted.name))
    if version is None:
        return f"{wanted.name} is not installed"
    if wanted.specifier.contains(version, prereleases=True):
        return ""
    return f"{wanted.name} {version} instead of {str(wanted.specifier).removeprefix('==')}"


def _listed(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _NAMED} more" if len(texts) > _NAMED else ""
    return ", ".join(texts[:_NAMED]) + more
