"""Known vulnerabilities of what requirements/cpu.lock pins, by pip-audit.

Exit status 1 where some are found; 0 with a word of it where no advisory could be asked, as behind
an index that has none.
"""

import json
import subprocess
import sys
from typing import Any


def report(found: dict[str, Any]) -> tuple[list[str], int]:
    """Lines to print of pip-audit's JSON, and the exit status."""
    packages = found["dependencies"]
    asked = [each for each in packages if "vulns" in each]
    lines = [
        f"{each['name']} {each['version']}: {known['id']}"
        + (f", mended in {known['fix_versions'][0]}" if known["fix_versions"] else ", not mended")
        for each in asked
        for known in each["vulns"]
    ]
    if not asked:
        return [f"audit: no advisories could be asked of {len(packages)} packages here"], 0
    of = f"{len(asked)} of {len(packages)} packages"
    return [*lines, f"audit: {len(lines)} known vulnerabilities in {of}"], 1 if lines else 0


def main(lock: str) -> int:
    """Ask pip-audit, which stands in the environment."""
    command = [sys.executable, "-m", "pip_audit", "-r", lock, "--no-deps", "--disable-pip"]
    asked = subprocess.run(
        [*command, "--progress-spinner", "off", "-f", "json"], capture_output=True, text=True
    )
    try:
        lines, status = report(json.loads(asked.stdout))
    except ValueError:
        lines, status = [f"audit: pip-audit could not run: {asked.stderr.strip()[-300:]}"], 0
    sys.stdout.write("\n".join(lines) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
