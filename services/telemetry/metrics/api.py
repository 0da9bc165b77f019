"""Calls of the admin API, for whoever serves it: a run, and `pairloop serve`."""

from prometheus_client import CollectorRegistry, Counter

CODES = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND"),
    *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "INTERNAL"),
    *("UNAVAILABLE", "UNAUTHENTICATED"),
)
"""Of gRPC, as they end here; what never happened is exported as 0."""


class ApiCalls:
    """In one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._ended = Counter(
            "pairloop_api_calls", "Calls of the admin API that ended", ["code"], registry=registry
        )
        for code in CODES:
            self._ended.labels(code)

    def ended(self, code: str) -> None:
        """One call, with this code."""
        self._ended.labels(code).inc()
