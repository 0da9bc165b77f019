"""Files of tokens and of TLS are read before anything starts."""

from services.access.tokens import Access
from services.admin.settings import AdminSettings


def check_access(admin: AdminSettings) -> None:
    """Raises ConfigError, with file and line."""
    Access.configured(admin.tokens)
    if admin.tls_cert is not None:
        from services.admin.tls import credentials  # gRPC takes a while

        credentials(admin)
