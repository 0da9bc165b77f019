"""A run's metrics over HTTP, for Prometheus to scrape: one more listener of the record."""

import threading
from collections.abc import Mapping
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, disable_created_metrics, start_http_server

from services.errors import UnreachableError
from services.telemetry.metrics.api import ApiCalls
from services.telemetry.metrics.asked import Asking
from services.telemetry.metrics.instruments import Instruments
from services.telemetry.metrics.tally import Tally
from services.telemetry.record.events import Event
from services.telemetry.record.state import RunState


class Exporter:
    """Listens from `start` to `stop`, which the recorder calls."""

    def __init__(
        self, host: str, port: int, about: Mapping[str, str], answers: Mapping[str, int]
    ) -> None:
        """`port`: 0 for a free one. `about`: name, job and version of the run, as labels.

        `answers`: of a prompt, by online stage.
        """
        # A series more for each counter, which nobody asks for.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._host, self._port = host, port
        self._registry = CollectorRegistry()
        self.asking = Asking()
        """Who runs an online stage says here how it can be asked."""
        self._registry.register(self.asking)
        self.api = ApiCalls(self._registry)
        """Of the admin API of the run."""
        instruments = Instruments(self._registry)
        instruments.run.info(dict(about))
        self._tally = Tally(instruments, answers)
        self._serving: tuple[WSGIServer, threading.Thread] | None = None

    @property
    def address(self) -> str:
        """Where it is scraped, once started."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}/metrics"

    def start(self) -> None:
        """Listen. Raises UnreachableError when the port cannot be taken."""
        try:
            self._serving = start_http_server(self._port, self._host, self._registry)
        except OSError as error:
            raise UnreachableError(
                f"metrics cannot listen on {self._host}:{self._port} ({error.strerror}); set"
                " metrics.host and metrics.port to what is free, or metrics.port to 0"
            ) from None
        self._port = self._serving[0].server_port

    def handle(self, event: Event, state: RunState) -> None:
        """Count it."""
        self._tally.take(event, state)

    def stop(self) -> None:
        """Listen no more."""
        if self._serving is not None:
            server, thread = self._serving
            server.shutdown()
            server.server_close()
            thread.join()
            self._serving = None
