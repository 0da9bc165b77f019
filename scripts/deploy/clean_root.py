"""The image's steps in a clean Debian, where no container engine is at hand; as root.

    python -m scripts.deploy.clean_root FOLDER [--target cpu] [--share PATH ...]

FOLDER becomes the root file system: Debian by debootstrap, from the mirror that this machine uses,
with Debian's Python in place of the base image's. Then every ARG, ENV, WORKDIR, COPY and RUN of the
Dockerfile's chain of stages, in order, in a chroot; and at last, as the image's user with a root
that it cannot write to, what an image has to do. `--share`: folders of this machine that packages
come from. What it does not show: layers, the engine's own isolation, health checks.
"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from scripts.deploy.dockerfile import WORKDIR, Step, global_arguments, in_image, stages
from scripts.deploy.documents import ROOT

_PYTHON = "python3,python3-venv,python-is-python3,ca-certificates"
_CHECKS = (
    "python deploy/docker/health.py --help || true",
    "python orchestrator/run.py configs/demo.yaml output=/runs --dry-run",
    "pairloop --help",
    "pairloop doctor configs/demo.yaml output=/runs || true",
    "python -c 'import torch, vllm, ray; print(torch.__version__, vllm.__version__)'",
    "test ! -w /opt/pairloop && touch /runs/written",
)
_OF_THE_MACHINE = (
    *("/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf"),
    "/etc/ssl/certs/ca-certificates.crt",
)
"""What a package manager needs to get out."""
_INDEXES = ("PIP_", "UV_", "SSL_CERT", "HTTP_PROXY", "HTTPS_PROXY")


def chain(target: str) -> list[Step]:
    """The steps of a target and of the stages under it, the lowest first; args keep their order."""
    found = stages()
    steps = found[target]
    below = steps[0][1]
    return [*(chain(below) if below in found else []), *steps]


class Root:
    """A root file system to run steps in."""

    def __init__(self, folder: Path, shared: list[str]) -> None:
        self.folder, self._shared = folder, shared
        self.environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        self.arguments = {k: v for k, v in os.environ.items() if k.startswith(_INDEXES)}
        self._workdir = "/"

    def made(self) -> None:
        """Debian with Python."""
        suite, mirror = _debian()
        _run(["debootstrap", "--variant=minbase", f"--include={_PYTHON}", suite,
              str(self.folder), mirror])  # fmt: skip
        for path in _OF_THE_MACHINE:
            place = self.folder / path.lstrip("/")
            if Path(path).is_file():
                place.unlink(missing_ok=True)
                shutil.copy(path, place)

    def step(self, instruction: str, text: str) -> None:
        """One of the Dockerfile's."""
        if instruction == "ARG":
            for name, given, default in re.findall(r'(\w+)(=)?("[^"]*"|\S+)?', text):
                if given:
                    self.arguments[name] = default.strip('"')
                elif name in global_arguments():
                    self.arguments[name] = global_arguments()[name]
        elif instruction == "ENV":
            for name, value in (word.split("=", 1) for word in shlex.split(text)):
                self.environment[name] = value.replace("$PATH", self.environment["PATH"])
        elif instruction == "WORKDIR":
            self._workdir = text
            (self.folder / text.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif instruction == "COPY":
            self._copy(*shlex.split(text))
        elif instruction == "RUN":
            self.run(re.sub(r"--mount=\S+", "", text), {**self.environment, **self.arguments})

    def run(self, command: str, environment: dict[str, str] | None = None, user: str = "") -> None:
        """In the chroot, with the folders that packages come from."""
        print(f"-> {command.strip()[:100]}", flush=True)
        within = f"cd {shlex.quote(self._workdir)} && {command}"
        who = [f"--userspec={user}"] if user else []
        inside = shlex.join(["chroot", *who, str(self.folder), "/bin/sh", "-c", within])
        # A mount namespace of its own: nothing stays mounted, whatever happens.
        mounts = ["mount -t proc proc {0}/proc", "mount --rbind /dev {0}/dev"]
        for path in self._shared:
            mounts.append(f"mkdir -p {{0}}{path} && mount --rbind {path} {{0}}{path}")
        quoted = shlex.quote(str(self.folder))
        script = " && ".join([*(each.format(quoted) for each in mounts), inside])
        _run(["unshare", "--mount", "/bin/sh", "-c", script], environment or self.environment)

    def _copy(self, *words: str) -> None:
        *sources, target = words
        to = self.folder / self._workdir.lstrip("/") / target
        for source in sources:
            for path in _tracked(source):
                place = to / (path if source == "." else Path(path).name)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / path, place)


def _tracked(source: str) -> list[str]:
    """Files of the tree under a path that come into the image."""
    words = ["git", "-C", str(ROOT), "ls-files", source]
    listed = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    return [path for path in listed if in_image(path)]


def _debian() -> tuple[str, str]:
    """Its name and the mirror that apt uses here."""
    release = Path("/etc/os-release").read_text(encoding="utf-8")
    (suite,) = re.findall(r"VERSION_CODENAME=(\w+)", release)
    places = [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")]
    text = "\n".join(each.read_text(encoding="utf-8") for each in places if each.is_file())
    return suite, re.findall(r"(https?://\S+/debian)/?\s", text)[0]


def _run(words: list[str], environment: dict[str, str] | None = None) -> None:
    subprocess.run(words, check=True, env=environment)


def main(arguments: list[str]) -> int:
    """Exit status 0 when every step and check was."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--target", default="cpu")
    parser.add_argument("--share", action="append", default=[])
    asked = parser.parse_args(arguments)
    root = Root(asked.folder.resolve(), asked.share)
    try:
        root.made()
        steps = chain(asked.target)
        for step in steps:
            root.step(*step)
        user = dict(steps)["USER"]
        for check in _CHECKS:
            root.run(check, user=user)
    except subprocess.CalledProcessError as error:
        print(f"clean root: {error}", file=sys.stderr)
        return 1
    files = (asked.folder / WORKDIR.lstrip("/")).rglob("*")
    size = sum(each.lstat().st_size for each in files) >> 20
    print(f"clean root: every step held; {WORKDIR} has {size} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
