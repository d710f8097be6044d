"""Settings that are secret: who may read their files, where they are found, and that none is ever shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ajhost.cli.check import without_secrets
from ajhost.settings.errors import SettingsError
from ajhost.settings.load import load
from tests.unit.settings.test_load import CREDS, HANDLER, SEED, load_text, problem_of, problems_of, write

DAEMON = str(Path(__file__).parents[3] / "daemon")


@pytest.mark.parametrize(
    ("key", "content"),
    [("creds", CREDS), ("nkey", SEED + "\n"), ("token_file", "t\n"), ("password_file", "p")],
)
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_secret_file_that_others_can_open_is_refused(directory: Path, key: str, content: str, mode: int) -> None:
    text = f'{HANDLER}[nats]\n{key} = "secret"\n' + ('user = "u"\n' if key == "password_file" else "")
    write(directory / "secret", content)
    load_text(directory, text)
    (directory / "secret").chmod(mode)
    problem = problem_of(directory, text)
    assert problem.key == f"nats.{key}"
    assert f"{mode:04o}" in problem.found


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        ('user = "u"\npassword = "hunter2"', "nats.password"),
        ('token = "hunter2"', "nats.token"),
        ('servers = ["nats://hunter2@h"]', "nats.servers"),
    ],
)
def test_settings_with_a_secret_in_them_are_for_their_owner_and_group_alone(
    directory: Path, lines: str, key: str
) -> None:
    file = directory / "ajhost.toml"
    drop_in = directory / "conf.d" / "secret.toml"
    write(file, HANDLER, 0o644)
    write(drop_in, f"[nats]\n{lines}", 0o640)
    load(file, {})
    drop_in.chmod(0o644)
    with pytest.raises(SettingsError) as caught:
        load(file, {})
    (problem,) = caught.value.problems
    assert (problem.file, problem.key) == (drop_in, key)
    assert "0644" in problem.found
    assert f"chmod o-r {drop_in}" in problem.allowed
    assert "hunter2" not in str(problem)


@pytest.mark.parametrize("key", ["creds", "nkey", "token_file"])
def test_a_secret_file_that_holds_something_else_is_refused_without_showing_it(directory: Path, key: str) -> None:
    for content in ("", "hunter2\nhunter2\n", "\n\n"):
        write(directory / "secret", content)
        problem = problem_of(directory, f'{HANDLER}[nats]\n{key} = "secret"')
        assert problem.key == f"nats.{key}"
        assert "hunter2" not in str(problem)


def test_credentials_of_the_service_manager_come_first_and_are_not_asked_for_their_mode(
    directory: Path,
) -> None:
    credentials = directory / "credentials-of-systemd"
    credentials.mkdir()
    environ = {"CREDENTIALS_DIRECTORY": str(credentials)}
    write(directory / "nats.creds", CREDS)
    text = f'{HANDLER}[nats]\ncreds = "nats.creds"'
    assert load_text(directory, text, environ).nats.creds == directory / "nats.creds"
    write(credentials / "nats.creds", CREDS, 0o440)
    assert load_text(directory, text, environ).nats.creds == credentials / "nats.creds"


def test_a_credential_of_a_loaded_directory_goes_by_the_name_of_its_file(directory: Path) -> None:
    credentials = directory / "credentials-of-systemd"
    credentials.mkdir()
    write(credentials / "credentials_nats.creds", CREDS, 0o440)
    settings = load_text(
        directory,
        f'{HANDLER}[nats]\ncreds = "credentials/nats.creds"',
        {"CREDENTIALS_DIRECTORY": str(credentials)},
    )
    assert settings.nats.creds == credentials / "credentials_nats.creds"


def test_a_missing_credential_names_every_place(directory: Path) -> None:
    problem = problem_of(directory, f'{HANDLER}[nats]\ncreds = "x.creds"', {"CREDENTIALS_DIRECTORY": "/no/credentials"})
    assert f"in /no/credentials or {directory}" in problem.found


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        ('user = "u"', "nats.user"),
        ('password = "p"', "nats.password"),
        ('user = "u"\npassword = "p"\npassword_file = "f"', "nats.password_file"),
        ('user = "u"\npassword = "p"\ntoken = "t"', "nats.user"),
        ('token = "t"\ntoken_file = "f"', "nats.token_file"),
        ('[nats.tls]\nkey = "k"', "nats.tls.key"),
        ('context = "x"\nservers = ["nats://h"]', "nats.servers"),
    ],
)
def test_keys_that_contradict_each_other_are_told(directory: Path, lines: str, key: str) -> None:
    write(directory / "f", "secret")
    assert key in problems_of(directory, f"{HANDLER}[nats]\n{lines}", {"HOME": str(directory)})


def test_no_secret_is_ever_shown(directory: Path) -> None:
    write(directory / "pw", "hunter2")
    settings = load_text(
        directory,
        f'{HANDLER}[nats]\nservers = ["nats://hunter2@a", "tls://u:hunter2@b:1"]\nuser = "u"\npassword_file = "pw"',
    )
    assert "hunter2" not in repr(settings)
    shown = without_secrets(settings)
    assert "hunter2" not in str(shown)
    assert shown["nats"]["servers"] == ["nats://***@a", "tls://***@b:1"]
    assert shown["nats"]["password"] == "***"
    wrong = (
        'servers = ["ws://u:hunter2@h", "u:hunter2@h", "nats://u:hunter2", "nats://u:hunt/er2@h", "nats://a://hunter2@h"]',
        "password = ['hunter2']\nuser = 'u'",
        "token = { hunter2 = 1 }",
        "password = 'hunter2\nuser = 'u'",
    )
    for lines in wrong:
        text = "\n".join(map(str, problems_of(directory, f"{HANDLER}[nats]\n{lines}").values()))
        assert "hunter2" not in text
        assert "hunt/er2" not in text


def test_a_mistyped_credential_is_told_with_those_that_there_are(tmp_path: Path) -> None:
    credentials = tmp_path / "given"
    credentials.mkdir()
    write(credentials / "credentials_nats.creds", "x", 0o400)
    if os.geteuid() == 0:
        pytest.skip("root may look into every directory")
    (tmp_path / "credentials").mkdir(mode=0)
    file = write(tmp_path / "ajhost.toml", HANDLER + '[nats]\ncreds = "credentials/nats.crds"\n')
    with pytest.raises(SettingsError, match="one of those that it was given: credentials_nats.creds"):
        load(file, {"CREDENTIALS_DIRECTORY": str(credentials)})


def test_a_user_without_a_home_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "ajhost.toml", HANDLER + '[nats]\ncontext = "AJC"\n')
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000)
    with pytest.raises(SettingsError, match="HOME or XDG_CONFIG_HOME"):
        load(file, {})
