"""Settings from the environment: as those of a file, above them, and told by the variable's name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ajhost.settings.environment import setting_variables
from ajhost.settings.errors import SettingsError
from ajhost.settings.load import load
from ajhost.settings.runtime_table import runtime_directory
from ajhost.settings.sections import RuntimeSettings

HANDLERS = {"AJHOST_HANDLERS": json.dumps({"email:new": {"target": "a:b", "timeout": 3}})}


def test_the_environment_may_say_everything(tmp_path: Path) -> None:
    settings = load(
        tmp_path / "there-is-none.toml",
        {
            **HANDLERS,
            "AJHOST_NATS__SERVERS": '["nats://nats:4222", "tls://other:4222"]',
            "AJHOST_NATS__USER": "1234",
            "AJHOST_NATS__PASSWORD": "5678",
            "AJHOST_NATS__TLS__FIRST": "True",
            "AJHOST_WORKERS__COUNT": "4",
            "AJHOST_WORKERS__DRAIN_TIMEOUT": "8.5",
            "AJHOST_WORKERS__MAX_MEMORY": "512M",
            "AJHOST_PYTHON__PATH": json.dumps([str(tmp_path)]),
            "AJHOST_PYTHON__PRELOAD": "false",
            "AJHOST_LOG__FORMAT": "json",
            "AJHOST_LOG__LEVELS": '{"urllib3": "warning"}',
            "AJHOST_HTTP__LISTEN": "0.0.0.0:9464",
        },
    )
    assert settings.nats.servers == ("nats://nats:4222", "tls://other:4222")
    assert settings.nats.user == "1234"
    assert settings.nats.tls is not None
    assert settings.nats.tls.first
    assert (settings.workers.count, settings.workers.drain_timeout) == (4, 8.5)
    assert settings.workers.max_memory == 512 << 20
    assert settings.python.path == (tmp_path,)
    assert not settings.python.preload
    assert (settings.log.format, settings.log.levels) == ("json", (("urllib3", "warning"),))
    assert [(h.route, h.target, h.timeout) for h in settings.handlers] == [("email:new", "a:b", 3.0)]


def test_it_stands_above_the_file_key_by_key(tmp_path: Path) -> None:
    file = tmp_path / "ajhost.toml"
    file.write_text('[workers]\ncount = 2\nbacklog = 7\n[handlers.x]\ntarget = "a:b"\n')
    settings = load(file, {"AJHOST_WORKERS__COUNT": "3"})
    assert (settings.workers.count, settings.workers.backlog) == (3, 7)
    assert [handler.route for handler in settings.handlers] == ["x"]


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("AJHOST_WORKERS__CUONT", "3", "workers.cuont: found an unknown key"),
        ("AJHOST_WROKERS__COUNT", "3", "wrokers: found an unknown key"),
        ("AJHOST_WORKERS__COUNT", "many", "workers.count: found"),
        ("AJHOST_NATS__SERVERS", "nats://u:hunter2@h", "nats.servers: found what is no JSON"),
        ("AJHOST_NATS__SERVERS", '["http://u:hunter2@h"]', "nats.servers[0]: found scheme"),
        ("AJHOST_PYTHON__PRELOAD", "maybe", "python.preload: found"),
        ("AJHOST_NATS__NKEY", "hunter2", "nats.nkey: found the name of no file"),
        ("AJHOST_LOG__LEVEL", "loud", "log.level: found"),
    ],
)
def test_a_mistake_is_told_by_the_variable(tmp_path: Path, name: str, value: str, told: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(tmp_path / "none.toml", {**HANDLERS, name: value})
    assert f"{name} (environment): {told}" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_other_variables_are_none_of_ours(tmp_path: Path) -> None:
    """Kubernetes sets such for a service that is called ajhost."""
    kubernetes = {"AJHOST_PORT": "tcp://10.0.0.1:80", "AJHOST_SERVICE_HOST": "10.0.0.1", "AJHOSTX": "1"}
    assert load(tmp_path / "none.toml", {**HANDLERS, **kubernetes}).handlers
    assert setting_variables({**HANDLERS, **kubernetes}) == ["AJHOST_HANDLERS"]


def test_commands_find_the_runtime_directory_there_too(tmp_path: Path) -> None:
    named = {"AJHOST_RUNTIME__DIRECTORY": "/run/elsewhere"}
    assert runtime_directory(tmp_path / "none.toml", named) == Path("/run/elsewhere")


def test_commands_need_no_file_either_where_the_environment_says_something(tmp_path: Path) -> None:
    assert runtime_directory(tmp_path / "none.toml", HANDLERS) == RuntimeSettings().directory
    with pytest.raises(FileNotFoundError):
        runtime_directory(tmp_path / "none.toml", {"AJHOST_PORT": "tcp://10.0.0.1:80"})
