"""Who may do what: bearer tokens with a role each.

A file, or the text of PAIRLOOP_TOKENS, has one token a line; empty lines and those that begin with
# are skipped:

    <identity> <role> <token>             such as:  ada write 6fK...
    <identity> <role> sha256:<64 digits>  of a token that stays with its owner

Roles: read looks; annotate looks and labels; write does everything. A token is given as
`authorization: Bearer <token>`. It is never logged, and compared by its digest, so that the time
this takes tells nothing.
"""

import hashlib
import hmac
import ipaddress
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self

from services.errors import ConfigError

TOKENS = "PAIRLOOP_TOKENS"
"""Environment variable with the text of such a file."""
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_LEAST = 16
"""Characters of a token: a shorter one can be guessed."""


class Role(StrEnum):
    """What the owner of a token may do."""

    READ = "read"
    ANNOTATE = "annotate"
    WRITE = "write"

    def covers(self, needed: "Role") -> bool:
        """Whether it may do what needs another role."""
        return self in (needed, Role.WRITE) or needed is Role.READ


@dataclass(frozen=True)
class Identity:
    """The owner of a token."""

    name: str
    role: Role


NOBODY_ASKED = Identity("", Role.WRITE)
"""Where there are no tokens everybody may do everything, under the name they give themselves."""


class Access:
    """The tokens that a server takes; only their digests are kept."""

    def __init__(self, owners: Iterable[tuple[bytes, Identity]]) -> None:
        """Pairs of a token's SHA-256 and its owner; none: everybody is let in."""
        self._owners = list(owners)

    @classmethod
    def configured(cls, path: str | None) -> Self:
        """Of the file, or else of the environment. Raises ConfigError, with the line."""
        if path is None:
            return cls(_parsed(os.environ.get(TOKENS, ""), TOKENS))
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"the tokens in {path} cannot be read ({error}); name a text file of lines"
                " 'identity role token'"
            ) from None
        owners = _parsed(text, path)
        if not owners:
            raise ConfigError(f"{path} has no token; add lines 'identity role token', or leave the"
                              " setting out")  # fmt: skip
        return cls(owners)

    def beside(self, token: str, identity: Identity) -> Self:
        """The same, and one token more."""
        return type(self)([*self._owners, (hashlib.sha256(token.encode()).digest(), identity)])

    @property
    def asked(self) -> bool:
        """Whether a token is needed."""
        return bool(self._owners)

    def owner(self, authorization: str) -> Identity | None:
        """Of the token in this header, None for none that is known."""
        if not self._owners:
            return NOBODY_ASKED
        kind, _, token = authorization.partition(" ")
        if kind.lower() != "bearer":
            return None
        given = hashlib.sha256(token.strip().encode()).digest()
        found = None
        for digest, identity in self._owners:
            if hmac.compare_digest(digest, given):
                found = identity
        return found


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _parsed(text: str, where: str) -> list[tuple[bytes, Identity]]:
    owners: list[tuple[bytes, Identity]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        at = f"{where}:{number}"
        if len(words) != 3:
            raise ConfigError(f"{at}: {len(words)} words; write 'identity role token'")
        name, role, token = words
        if role not in list(Role):
            raise ConfigError(f"{at}: no role '{role}'; take {', '.join(Role)}")
        if digest := _DIGEST.fullmatch(token):
            hashed = bytes.fromhex(digest[1])
        elif len(token) < _LEAST:
            raise ConfigError(
                f"{at}: the token of {name} is shorter than {_LEAST} characters; take one that"
                " nobody guesses, such as of: openssl rand -hex 32"
            )
        else:
            hashed = hashlib.sha256(token.encode()).digest()
        if any(hmac.compare_digest(hashed, known) for known, _ in owners):
            raise ConfigError(f"{at}: the token of {name} stands there twice; give each its own")
        owners.append((hashed, Identity(name, Role(role))))
    return owners
