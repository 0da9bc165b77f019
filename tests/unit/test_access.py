"""Who is let in, and what a file of tokens may say."""

import hashlib
from pathlib import Path

import pytest

from services.access.tokens import TOKENS, Access, Identity, Role
from services.admin.settings import AdminSettings
from services.admin.tls import credentials
from services.errors import ConfigError

SECRET, OTHER = "a-token-that-is-long", "another-token-as-long"


def test_each_token_is_its_owners(tmp_path: Path) -> None:
    digest = hashlib.sha256(OTHER.encode()).hexdigest()
    path = tmp_path / "tokens"
    path.write_text(f"# ours\n\nada write {SECRET}\nbob  read  sha256:{digest}\n")
    access = Access.configured(str(path))
    assert access.asked
    assert access.owner(f"Bearer {SECRET}") == Identity("ada", Role.WRITE)
    assert access.owner(f"bearer {OTHER} ") == Identity("bob", Role.READ)
    for given in ("", SECRET, f"Basic {SECRET}", f"Bearer {SECRET}x", f"Bearer sha256:{digest}"):
        assert access.owner(given) is None
    assert SECRET not in repr(vars(access))


def test_without_tokens_everybody_may_do_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOKENS, raising=False)
    access = Access.configured(None)
    assert not access.asked
    assert access.owner("") == Identity("", Role.WRITE)


def test_the_environment_counts_where_no_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKENS, f"ci annotate {SECRET}")
    assert Access.configured(None).owner(f"Bearer {SECRET}") == Identity("ci", Role.ANNOTATE)


def test_what_a_role_covers() -> None:
    covers = {role: [other for other in Role if role.covers(other)] for role in Role}
    assert covers == {
        Role.READ: [Role.READ],
        Role.ANNOTATE: [Role.READ, Role.ANNOTATE],
        Role.WRITE: [Role.READ, Role.ANNOTATE, Role.WRITE],
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ada write", ":1: 2 words; write 'identity role token'"),
        (f"\nada admin {SECRET}", ":2: no role 'admin'; take read, annotate, write"),
        ("ada write short", ":1: the token of ada is shorter than 16 characters; take one"),
        (f"ada read {SECRET}\nbob write {SECRET}", ":2: the token of bob stands there twice"),
        ("# nobody", " has no token; add lines"),
    ],
)
def test_a_wrong_file_is_told_by_its_line_and_never_with_the_token(
    text: str, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "tokens"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        Access.configured(str(path))
    assert str(caught.value).startswith(f"{path}{said}")
    assert SECRET not in str(caught.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        Access.configured(str(tmp_path / "nothing"))


def test_tls_is_whole_and_its_files_are_pem(tmp_path: Path) -> None:
    for half in ({"tls_cert": "c"}, {"tls_key": "k"}, {"tls_client_ca": "a"}):
        with pytest.raises(ValueError, match=r"belong together|needs tls_cert"):
            AdminSettings.model_validate(half)
    assert credentials(AdminSettings()) is None
    (tmp_path / "c").write_text("no certificate")
    for path, said in ((tmp_path / "c", "is no PEM file"), (tmp_path / "no", "cannot be read")):
        settings = AdminSettings(tls_cert=str(path), tls_key=str(path))
        with pytest.raises(ConfigError, match=f"'admin.tls_key': {path} {said}"):
            credentials(settings)
