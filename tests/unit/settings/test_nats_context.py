"""NATS contexts, as the `nats` command keeps them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ajhost.settings.errors import Problem, SettingsError
from ajhost.settings.load import load
from ajhost.settings.sections import NatsSettings, TlsSettings
from tests.unit.settings.test_load import CREDS, SEED, write


class Home:
    """A home with contexts, and a configuration that names one of them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.contexts = directory / ".config" / "nats" / "context"
        self.contexts.mkdir(parents=True)
        self.environ = {"HOME": str(directory)}

    def context(self, name: str = "AJC", mode: int = 0o600, **fields: Any) -> Path:
        return write(self.contexts / f"{name}.json", json.dumps(fields), mode)

    def load(self, name: str = "AJC", more: str = "") -> NatsSettings:
        text = f'[nats]\ncontext = "{name}"\n{more}\n[handlers.""]\ntarget = "a:b"\n'
        return load(write(self.directory / "ajhost.toml", text), self.environ).nats

    def problems(self, name: str = "AJC") -> tuple[Problem, ...]:
        with pytest.raises(SettingsError) as caught:
            self.load(name)
        return caught.value.problems


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_a_context_gives_servers_and_credentials(home: Home) -> None:
    creds = write(home.directory / "me.creds", CREDS)
    home.context(
        url="nats://a:1, tls://b,c:4222",
        creds=str(creds),
        inbox_prefix="_INBOX_me",
        description="ours",
        jetstream_domain="hub",
        color_scheme="",
        socks_proxy="",
        nsc="",
        token="",
    )
    assert home.load() == NatsSettings(
        servers=("nats://a:1", "tls://b", "nats://c:4222"), creds=creds, inbox_prefix="_INBOX_me"
    )


def test_a_context_without_a_url_means_the_default_server(home: Home) -> None:
    home.context(user="u", password="p")
    assert home.load() == NatsSettings(user="u", password="p")


def test_the_queue_group_is_ours_beside_a_context(home: Home) -> None:
    home.context(url="nats://a")
    assert home.load(more='queue_group = "g"') == NatsSettings(servers=("nats://a",), queue_group="g")


def test_of_several_credentials_the_first_counts_as_for_the_nats_command(home: Home) -> None:
    home.context(user="u", password="p", creds="/no/such.creds", nkey="/no/such.nk")
    assert home.load() == NatsSettings(user="u", password="p")


@pytest.mark.parametrize("creds", ["~/me.creds", "$HOME/me.creds", "${HOME}/me.creds", "../../../me.creds"])
def test_paths_begin_at_home_in_variables_or_beside_the_context(home: Home, creds: str) -> None:
    write(home.directory / "me.creds", CREDS)
    home.context(creds=creds)
    found = home.load().creds
    assert found is not None
    assert found.samefile(home.directory / "me.creds")


def test_an_nkey_of_a_context_is_a_file(home: Home) -> None:
    nkey = write(home.contexts / "me.nk", SEED)
    home.context(nkey="me.nk")
    assert home.load().nkey == nkey


def test_tls_first_alone_asks_for_tls(home: Home) -> None:
    home.context(url="nats://a", tls_first=True)
    assert home.load().tls == TlsSettings(first=True)


def test_the_xdg_directory_comes_before_home(home: Home) -> None:
    home.environ["XDG_CONFIG_HOME"] = str(home.directory / "xdg")
    home.context(url="nats://home")
    (home.directory / "xdg" / "nats" / "context").mkdir(parents=True)
    write(home.directory / "xdg" / "nats" / "context" / "AJC.json", '{"url": "nats://xdg"}')
    assert home.load().servers == ("nats://xdg",)


@pytest.mark.parametrize("field", ["user_jwt", "socks_proxy", "nsc", "windows_cert_store", "something_new"])
def test_a_field_that_is_not_supported_is_named(home: Home, field: str) -> None:
    file = home.context("AJC", 0o600, **{field: "secret"})
    (problem,) = home.problems()
    assert (problem.file, problem.key) == (file, field)
    assert "not supported" in problem.found
    assert "secret" not in str(problem)


@pytest.mark.parametrize(
    ("field", "value", "scheme"),
    [
        ("url", "ws://u:secret@h", "ws"),
        ("creds", "op://vault/item", "op"),
        ("creds", "nsc://operator/account/user", "nsc"),
        ("cert", "https://h/cert.pem", "https"),
        ("password", "op://vault/item", "op"),
    ],
)
def test_a_scheme_that_is_not_supported_is_named(home: Home, field: str, value: str, scheme: str) -> None:
    file = home.context("AJC", 0o600, **{field: value})
    (problem,) = home.problems()
    assert (problem.file, problem.key) == (file, field)
    assert scheme in problem.found
    assert "secret" not in str(problem)


def test_every_problem_of_a_context_is_told_beside_those_of_the_configuration(home: Home) -> None:
    home.context(url="ws://a", creds="gone", user_jwt="x", token=3)
    with pytest.raises(SettingsError) as caught:
        home.load(more="[workers]\ncount = 0")
    assert {problem.key for problem in caught.value.problems} == {
        "url",
        "creds",
        "user_jwt",
        "token",
        "workers.count",
    }


def test_a_context_that_there_is_not_is_told_with_those_that_there_are(home: Home) -> None:
    home.context("AJC")
    home.context("OTHER")
    (problem,) = home.problems("AJD")
    assert problem.key == "nats.context"
    assert problem.allowed == '"AJC", "OTHER"; did you mean "AJC"?'


@pytest.mark.parametrize("name", ["../AJC", "a/b"])
def test_a_name_cannot_leave_the_directory(home: Home, name: str) -> None:
    (problem,) = home.problems(name)
    assert problem.key == "nats.context"


@pytest.mark.parametrize("content", ["{", "[]", "3"])
def test_a_context_that_is_no_json_object_says_so(home: Home, content: str) -> None:
    write(home.contexts / "AJC.json", content)
    (problem,) = home.problems()
    assert problem.key == "nats.context"
    assert "JSON" in problem.found


def test_a_context_with_a_password_that_others_can_read_is_refused(home: Home) -> None:
    home.context(mode=0o644, user="u", password="secret")
    (problem,) = home.problems()
    assert problem.key == "password"
    assert "secret in a file with mode 0644" in problem.found
    home.context(mode=0o644, url="nats://h")
    assert home.load().servers == ("nats://h",)
