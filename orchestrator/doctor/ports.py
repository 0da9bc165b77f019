"""Whether the ports are free that a run listens on."""

from collections.abc import Iterator

from orchestrator.checks.addresses import check_port
from orchestrator.doctor.finding import Finding, problem_of
from orchestrator.doctor.subject import Subject
from services.errors import UnreachableError


def check_ports(subject: Subject) -> Iterator[Finding]:
    """Those that have a number; a local Ray, the embedded Redis and port 0 take free ones."""
    free = []
    for listener in subject.listeners:
        try:
            check_port(listener)
        except UnreachableError as error:
            yield problem_of("ports", error, "end what listens there")
            continue
        where = f"{listener.host}:{listener.port}" if listener.port else "any that is free"
        free.append(f"{listener.key} ({where})")
    if free:
        yield Finding("ports", "ok", f"to be had: {', '.join(free)}")
