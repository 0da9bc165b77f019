"""Whether the image can be built from this tree, as far as that is seen without building it."""

import re
import shlex
from collections.abc import Iterator

from scripts.deploy.documents import ROOT

FILE = ROOT / "deploy" / "docker" / "Dockerfile"
WORKDIR = "/opt/pairloop"
TARGETS = ("cpu", "gpu")
NEEDED = (
    "README.md",  # which the package's metadata name
    "configs/demo.yaml",
    "deploy/docker/health.py",
    "orchestrator/run.py",
    "protos/pairloop",
    "pyproject.toml",
    "services",
)
_LABELS = ("title", "description", "licenses", "version", "revision")

Step = tuple[str, str]


def stages() -> dict[str, list[Step]]:
    """The steps of each stage, an instruction and its text, by name; the first is its FROM."""
    text = re.sub(r"^#.*\n", "", FILE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found: dict[str, list[Step]] = {}
    for line in text.replace("\\\n", " ").splitlines():
        instruction, _, rest = line.strip().partition(" ")
        if instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            found[name] = [(instruction, base)]
        elif instruction and found:
            found[list(found)[-1]].append((instruction, rest.strip()))
    return found


def global_arguments() -> dict[str, str]:
    """What is set before the first stage, which a stage has once it names it."""
    before = FILE.read_text(encoding="utf-8").split("\nFROM ")[0]
    found = re.findall(r'^ARG (\w+)=("[^"]*"|\S+)$', before, flags=re.MULTILINE)
    return {name: value.strip('"') for name, value in found}


def in_image(path: str) -> bool:
    """Whether .dockerignore lets a file of the tree, which has to be there, into the image."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").split("\n")
    allowed = [line[1:] for line in lines if line.startswith("!")]
    within = any(path == each or path.startswith(f"{each}/") for each in allowed)
    return within and (ROOT / path).exists()


def problems() -> list[str]:
    """A line for each path that is not there, and for what a target lacks."""
    found = stages()
    lines = [f"{path} does not come into the image" for path in NEEDED if not in_image(path)]
    for name, steps in found.items():
        lines += [f"stage {name}: {line}" for line in _sources(steps, list(found))]
    if not any(
        "/opt/pairloop/.venv/bin:$PATH' > /etc/profile.d/" in step for _, step in found["base"]
    ):
        lines.append("a login shell, which KubeRay uses, does not find ray")
    for target in TARGETS:
        lines += [f"target {target}: {line}" for line in _lacks(found.get(target, []))]
    return lines


def _sources(steps: list[Step], known: list[str]) -> Iterator[str]:
    for instruction, text in steps:
        if instruction != "COPY":
            continue
        *sources, _ = shlex.split(text)
        if sources[0].startswith("--from="):
            if sources[0].removeprefix("--from=") not in known:
                yield f"no stage {sources[0]}"
            continue
        yield from (f"no {each}" for each in sources if each != "." and not in_image(each))


def _lacks(steps: list[Step]) -> Iterator[str]:
    text = dict(steps)
    if text.get("USER", "0").split(":")[0] in ("0", "root") or not text["USER"][0].isdigit():
        yield "its user is root, or a name that Kubernetes cannot tell from root"
    yield from (f"no {each}" for each in ("HEALTHCHECK", "CMD", "LABEL") if each not in text)
    names = re.findall(r"org\.opencontainers\.image\.(\w+)=", text.get("LABEL", ""))
    yield from (f"no label {each}" for each in _LABELS if each not in names)
    # What changes with each version of the code comes after the packages, which are in its FROM.
    order = [instruction for instruction, _ in steps]
    if not text.get("FROM", "").startswith("packages-") or order.count("COPY") != 1:
        yield "its packages are no layer of their own"
