"""The real router and producer, with exactly the permissions of docs/permissions.md, in both modes of a server."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.connection.test_permissions_page import lists_of
from tests.router.events import TaskEvents
from tests.support.factories import NewHost, StartServer
from tests.support.nats import JetStream
from tests.support.operator_mode import Operator
from tests.support.program import Program, run

USERS = ("host", "router", "producer")
ALL = {"subscribe": [">"], "publish": [">"]}


def accounts(directory: Path) -> tuple[str, dict[str, dict[str, str]]]:
    """The server's configuration, and each user's part of a context."""
    users = [
        {
            "user": user,
            "password": "pw",
            "permissions": {kind: {"allow": subjects} for kind, subjects in lists.items()},
        }
        for user, lists in _lists().items()
    ]
    config = f"accounts {{ APP: {{ jetstream: enabled, users: {json.dumps(users)} }} }}"
    return config, {str(user["user"]): {"user": str(user["user"]), "password": "pw"} for user in users}


def operator(directory: Path) -> tuple[str, dict[str, dict[str, str]]]:
    """As `accounts`, by JWTs."""
    made, parts = Operator(jetstream=True), dict[str, dict[str, str]]()
    for user, lists in _lists().items():
        file = directory / f"{user}.creds"
        file.write_text(made.user(user, pub={"allow": lists["publish"]}, sub={"allow": lists["subscribe"]}))
        file.chmod(0o600)
        parts[user] = {"creds": str(file)}
    return made.config(), parts


def _lists() -> dict[str, dict[str, list[str]]]:
    return {"admin": ALL, **{user: lists_of(user) for user in USERS}}


@pytest.mark.parametrize("mode", [accounts, operator], ids=["accounts", "operator"])
async def test_a_task_goes_from_its_producer_to_the_host_and_back(
    ajc: Path, tmp_path: Path, start_server: StartServer, new_host: NewHost, mode: Any
) -> None:
    config, parts = mode(tmp_path)
    server = await start_server(config=config, jetstream=JetStream.ON)
    environments = {}
    for user, part in parts.items():
        file = tmp_path / user / "nats" / "context" / "AJC.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({"url": server.url, **part}))
        environments[user] = {
            **os.environ,
            "XDG_CONFIG_HOME": str(tmp_path / user),
            "CONTEXT": "AJC",
            "NATS_CONTEXT": "AJC",
        }
    admin = (ajc, "queues", "add", "EMAIL", "--run-time", "30s")
    assert (created := await run(*admin, env=environments["admin"])).status == 0, created
    settings = parts["host"] | {"service": False}
    options = {"user_credentials" if key == "creds" else key: v for key, v in parts["admin"].items()}
    async with (
        new_host(handlers={"email:new": "echo"}, sections={"nats": settings}),
        TaskEvents(server.url, **options) as events,
        Program(*(ajc, "tasks", "process", "email:new", "EMAIL", "5", "--remote"), env=environments["router"]),
    ):
        producer = (ajc, "tasks", "add", "email:new", '{"to": "x"}', "--queue", "EMAIL")
        assert (added := await run(*producer, env=environments["producer"])).status == 0, added
        done = await events.until("complete", "retry", "terminated", "expired")
        assert (done["state"], done["tries"]) == ("complete", 1)
    assert "Violation" not in server.log()
