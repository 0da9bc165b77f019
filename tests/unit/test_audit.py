"""What the audit of the lock says of pip-audit's answers."""

from typing import Any

from scripts.audit import report

FINE: dict[str, Any] = {"name": "redis", "version": "8.1.0", "vulns": []}
KNOWN: dict[str, Any] = {
    "name": "jinja2",
    "version": "3.1.2",
    "vulns": [{"id": "GHSA-1", "fix_versions": ["3.1.3"]}, {"id": "GHSA-2", "fix_versions": []}],
}
SKIPPED = {"name": "torch", "skip_reason": "Dependency not found on PyPI"}


def test_what_is_known_fails_and_is_named_with_its_mending() -> None:
    assert report({"dependencies": [FINE, KNOWN, SKIPPED]}) == (
        [
            "jinja2 3.1.2: GHSA-1, mended in 3.1.3",
            "jinja2 3.1.2: GHSA-2, not mended",
            "audit: 2 known vulnerabilities in 2 of 3 packages",
        ],
        1,
    )


def test_nothing_known_is_fine_and_nothing_asked_is_said() -> None:
    assert report({"dependencies": [FINE]}) == (
        ["audit: 0 known vulnerabilities in 1 of 1 packages"],
        0,
    )
    assert report({"dependencies": [SKIPPED]}) == (
        ["audit: no advisories could be asked of 1 packages here"],
        0,
    )
