"""Where Redis is, as `queues.url` or REDIS_URL says it. Nothing here connects.

    redis://[user:password@]host[:port][,host:port...][/db][?option=value&...]
    redis+sentinel://[user:password@]host[:port][,host:port...]/service[/db][?option=value&...]

With rediss or rediss+sentinel every connection is TLS. Several hosts of the first form are nodes of
one cluster. User and password are the servers'; those of the Sentinels are options.
"""

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from services.errors import ConfigError

Host = tuple[str, int]

FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
"""Options that name a file, which lies at the same place on every node."""
OPTIONS = (
    *FILES, "ssl_cert_reqs", "ssl_check_hostname", "ssl_min_version", "ssl_ciphers", "client_name",
    "db", "sentinel_username", "sentinel_password",
)  # fmt: skip
"""Those of `redis.asyncio.Redis.from_url` that every kind of server takes, and the Sentinels'."""

_PORTS = {"server": 6379, "sentinel": 26379}
_HOST = re.compile(r"(\[[0-9a-fA-F:.%]+\]|[^\[\]:@,]+)(?::(\d{1,5}))?")
_MALFORMED = (
    "no Redis address: write redis://host:port, rediss://:password@host:port or"
    " redis+sentinel://host:port,host:port/service (characters like / # @ in a password as"
    " %2F, %23, %40)"
)
"""Nothing of the address is shown: a mistyped one may hold the password anywhere."""


@dataclass(frozen=True)
class Endpoint:
    """A parsed address."""

    kind: Literal["server", "sentinel"]
    """"server": one server, or nodes of a cluster; which, the server tells."""
    tls: bool
    hosts: tuple[Host, ...]
    service: str
    """What the Sentinels call the primary."""
    db: int
    shown: str
    """The address without secrets and options."""
    user: str | None
    password: str | None
    options: dict[str, str]

    def __repr__(self) -> str:
        return f"Endpoint({self.shown})"


def endpoint_of(url: str) -> Endpoint:
    """An address, parsed. Raises ConfigError, which shows nothing of a malformed one."""
    try:
        return parsed(url)
    except ValueError as error:
        raise ConfigError(f"queues.url is {error}") from None


def parsed(url: str) -> Endpoint:
    """As `endpoint_of`; the ValueError's text is to be read after what the address is called."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError(_MALFORMED) from None
    scheme, _, sentinel = parts.scheme.partition("+")
    if scheme not in ("redis", "rediss") or sentinel not in ("", "sentinel"):
        raise ValueError(_MALFORMED)
    if parts.fragment or "@" in parts.path + parts.query:
        raise ValueError(_MALFORMED)  # what stands before is a part of a password, maybe
    kind: Literal["server", "sentinel"] = "sentinel" if sentinel else "server"
    userinfo, _, netloc = parts.netloc.rpartition("@")
    user, _, password = userinfo.partition(":")
    hosts = tuple(_host(text, _PORTS[kind]) for text in netloc.split(","))
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := sorted(options.keys() - set(OPTIONS)):
        raise ValueError(
            f"an address with options that there are not ({', '.join(unknown)}): there are"
            f" {', '.join(OPTIONS)}"
        )
    if scheme == "redis" and any(name.startswith("ssl_") for name in options):
        raise ValueError("an address with ssl_ options and without TLS: write rediss for redis")
    names = parts.path.strip("/").split("/") if parts.path.strip("/") else []
    service = unquote(names.pop(0)) if kind == "sentinel" and names else ""
    if kind == "sentinel" and not service:
        raise ValueError(
            "a Sentinel's address without the name of a service: write"
            " redis+sentinel://host:port/service"
        )
    db = options.pop("db", "".join(names[:1])) or "0"
    if len(names) > 1 or not db.isdecimal():
        raise ValueError(_MALFORMED)
    shown_hosts = ",".join(f"{_bracketed(host)}:{port}" for host, port in hosts)
    return Endpoint(
        kind=kind,
        tls=scheme == "rediss",
        hosts=hosts,
        service=service,
        db=int(db),
        shown=f"{parts.scheme}://{shown_hosts}{parts.path}",
        user=unquote(user) or None,
        password=unquote(password) or None,
        options=options,
    )


def masked(url: str) -> str:
    """The address with *** for each password in it."""
    url = re.sub(r"(?<=//)([^:/?#]*):[^/?#]*@", r"\1:***@", url, count=1)
    return re.sub(r"(?<=[?&]sentinel_password=)[^&]*", "***", url)


def _host(text: str, default_port: int) -> Host:
    found = _HOST.fullmatch(text)
    if not found or int(found[2] or default_port) > 65535:
        raise ValueError(_MALFORMED)
    return found[1].strip("[]"), int(found[2] or default_port)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
