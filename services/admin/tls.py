"""TLS of the admin server: its certificate, and, for mTLS, who signs those of its callers."""

from pathlib import Path

import grpc

from services.admin.settings import AdminSettings
from services.errors import ConfigError


def credentials(settings: AdminSettings) -> grpc.ServerCredentials | None:
    """Of the files that the settings name; None without any. Raises ConfigError."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    authority = settings.tls_client_ca
    return grpc.ssl_server_credentials(
        [(_read(settings.tls_key, "tls_key"), _read(settings.tls_cert, "tls_cert"))],
        _read(authority, "tls_client_ca") if authority else None,
        require_client_auth=authority is not None,
    )


def _read(path: str, key: str) -> bytes:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"'admin.{key}': {path} cannot be read ({error.strerror}); name a PEM file"
        ) from None
    if b"-----BEGIN" not in data:
        raise ConfigError(f"'admin.{key}': {path} is no PEM file; name one")
    return data
