"""Settings of the gRPC admin server."""

from pydantic import Field, model_validator

from services.settings import Operational, Settings


class AdminSettings(Settings):
    """Where the admin API listens, and whom it answers."""

    host: Operational[str] = "127.0.0.1"
    """Loopback unless told otherwise: then set `tokens` and TLS, or whoever reaches it rules."""
    port: Operational[int] = Field(50051, ge=0, le=65535)
    """0 takes a free one, and so does a run where the usual one is taken and none is asked for; the
    address is printed."""
    console_port: Operational[int | None] = Field(50052, ge=0, le=65535)
    """Of the web console, by HTTP, on the same host, with the same tokens and TLS; 0 takes a free
    one, as happens where 50052 was not asked for and is taken; null: no console."""
    tokens: Operational[str | None] = None
    """File of lines "identity role token" (role: read, annotate or write); without it those of
    PAIRLOOP_TOKENS, and without that no token is asked for."""
    tls_cert: Operational[str | None] = None
    """PEM file with its certificate and those above it; with `tls_key` it speaks TLS alone."""
    tls_key: Operational[str | None] = None
    """PEM file with the key of `tls_cert`."""
    tls_client_ca: Operational[str | None] = None
    """PEM file of whoever signs its callers' certificates: without one nobody is answered."""

    @model_validator(mode="after")
    def _tls_is_whole(self) -> "AdminSettings":
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key belong together; set both or none")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError("tls_client_ca needs tls_cert and tls_key; set them too")
        return self
