"""Files of tokens and of TLS are read before anything starts."""

from services.access.tokens import Access
from services.admin.settings import AdminSettings
from services.reward.settings import RewardSettings


def check_access(admin: AdminSettings, reward: RewardSettings) -> None:
    """Raises ConfigError, with file and line."""
    for tokens in (admin.tokens, reward.tokens):
        Access.configured(tokens)
    if admin.tls_cert is not None:
        from services.admin.tls import credentials  # gRPC takes a while

        credentials(admin)
