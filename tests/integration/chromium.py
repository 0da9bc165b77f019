"""A real Chromium for tests: the system's, or Debian's packages without installing them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "pairloop-chromium"
_NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> tuple[Path, dict[str, str]]:
    """The program and its environment; the test is skipped where there is none and none comes."""
    for name in _NAMES:
        if found := shutil.which(name):
            return Path(found), dict(os.environ)
    program = CACHE / "usr" / "lib" / "chromium" / "chromium"
    if not program.exists():
        _fetch()
    libraries = CACHE / "usr" / "lib" / f"{os.uname().machine}-linux-gnu"
    environment = os.environ | {"LD_LIBRARY_PATH": str(libraries)}
    if (fonts := CACHE / "etc" / "fonts").exists():
        environment["FONTCONFIG_PATH"] = str(fonts)
    said = subprocess.run([program, "--version"], env=environment, capture_output=True, text=True)
    if said.returncode != 0:
        pytest.skip(f"the fetched Chromium does not start ({said.stderr[:200]}): install chromium")
    return program, environment


def _fetch() -> None:
    """The package and those of its libraries that are not installed."""
    if sys.platform != "linux" or not (shutil.which("apt-get") and shutil.which("dpkg")):
        pytest.skip("no Chromium here, and no apt to fetch it: install chromium")
    planned = subprocess.run(
        ["apt-get", "-s", "install", "--no-install-recommends", "chromium"],
        capture_output=True, text=True,
    )  # fmt: skip
    # The C library is the system's, whichever one the others were built against.
    wanted = sorted(set(re.findall(r"^Inst (\S+)", planned.stdout, re.MULTILINE)) - {"libc6"})
    CACHE.mkdir(parents=True, exist_ok=True)
    try:
        fetched = subprocess.run(
            ["apt-get", "download", *wanted], cwd=CACHE, capture_output=True, timeout=240
        )
    except subprocess.TimeoutExpired:
        pytest.skip("apt-get download chromium took too long: install chromium")
    if not wanted or fetched.returncode != 0:
        pytest.skip("apt-get download chromium failed: apt-get update, or install chromium")
    # Chromium last: its program stands for all of them.
    for package in sorted(CACHE.glob("*.deb"), key=lambda path: path.name.startswith("chromium_")):
        subprocess.run(["dpkg", "-x", package, CACHE], check=True)
        package.unlink()
