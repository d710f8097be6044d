"""The settings in the Dockerfile, the compose file and docs/containers.md are settings, and fit together."""

from __future__ import annotations

import json
import re
from pathlib import Path

from ajhost.settings.load import load
from ajhost.settings.sections import Settings

ROOT = Path(__file__).parents[2]
CONTAINER = ROOT / "packaging" / "container"
DOCKERFILE = (CONTAINER / "Dockerfile").read_text()
COMPOSE = (CONTAINER / "compose.yaml").read_text()
PAGE = (ROOT / "docs" / "containers.md").read_text()


def variables(text: str, pattern: str) -> dict[str, str]:
    return {name: value.replace("\\", "") for name, value in re.findall(pattern, text, re.MULTILINE)}


IMAGE = variables(DOCKERFILE, r"\b(AJHOST_\w+)=(\S+)")


def settings(environment: dict[str, str], directory: Path) -> Settings:
    """Read as in the image, but for what lies at paths that are only there."""
    assert environment
    app = {"AJHOST_PYTHON__PATH": json.dumps([str(CONTAINER / "app")])}
    found = {name: value for name, value in environment.items() if name != "AJHOST_NATS__CREDS"}
    return load(directory / "none.toml", {**IMAGE, **found, **app})


def test_those_of_the_compose_file_serve_its_own_handlers_and_stop_in_time(tmp_path: Path) -> None:
    found = settings(variables(COMPOSE, r"^ +(AJHOST_\w+): '(.*)'$"), tmp_path)
    assert found.nats.servers == ("nats://nats:4222",), "the name of its own service"
    for handler in found.handlers:
        module, _, function = handler.target.partition(":")
        assert f"def {function}(" in (CONTAINER / "app" / f"{module}.py").read_text()
    grace = re.search(r"stop_grace_period: (\d+)s", COMPOSE)
    assert grace is not None
    assert found.workers.drain_timeout < int(grace[1])
    assert found.http is not None
    assert f':{found.http.listen.rpartition(":")[2]}"]' in COMPOSE


def test_those_of_the_page_are_settings(tmp_path: Path) -> None:
    assert settings(variables(PAGE, r"^    (AJHOST_\w+)='?(.*?)'?$"), tmp_path).workers.count == 4
    assert settings(variables(PAGE, r"-e (AJHOST_\w+)='(.*?)'"), tmp_path).handlers
    kubernetes = variables(PAGE, r"name: (AJHOST_\w+), value: ('.*?'|\".*?\"|\S+) }")
    kubernetes = {name: value.strip("'\"") for name, value in kubernetes.items()}
    assert len(kubernetes) == 3
    handlers = {"AJHOST_HANDLERS": json.dumps({"a": {"target": "a:b"}})}
    assert settings({**kubernetes, **handlers}, tmp_path).workers.drain_timeout == 30
