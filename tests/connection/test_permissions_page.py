"""The permissions of docs/permissions.md, as they stand there, on a real server in both of its modes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.factories import NewHost, StartHost, StartRouter, StartServer
from tests.support.operator_mode import Operator
from tests.support.router import Verdict, subject_of

PAGE = (Path(__file__).parents[2] / "docs" / "permissions.md").read_text()
OWN_INBOX = "_INBOX.>"
"""The router of the tests sends messages to itself, to know what the server has read. A real one does not."""
HANDLERS = {"email:new": "echo", "echo": "echo"}


def lists_of(user: str) -> dict[str, list[str]]:
    """`subscribe` and `publish` of a user of the page."""
    (block,) = re.findall(rf"^    \{{\n      user: {user},.*?^    \}}$", PAGE, re.MULTILINE | re.DOTALL)
    found = re.findall(r"(subscribe|publish): \{ allow: \[(.*?)\] \}", block)
    return {kind: re.findall(r'"([^"]+)"', text) for kind, text in found}


def accounts(tmp_path: Path) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """The server's configuration, the host's settings, the router's options, by users of the configuration."""
    users = []
    for user in ("host", "router"):
        (block,) = re.findall(rf"^    \{{\n      user: {user},.*?^    \}}$", PAGE, re.MULTILINE | re.DOTALL)
        block = block.replace('"CHORIA_AJ.H.T.>"', f'"CHORIA_AJ.H.T.>", "{OWN_INBOX}"')
        users.append(block.replace('"..."', '"pw"'))
    config = f"accounts {{ APP: {{ users: [ {', '.join(users)} ] }} }}"
    return config, {"user": "host", "password": "pw"}, {"user": "router", "password": "pw"}


def operator(tmp_path: Path) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """As `accounts`, by JWTs."""
    made = Operator()
    files = {}
    for user in ("host", "router"):
        lists = lists_of(user)
        if user == "router":
            lists["publish"].append(OWN_INBOX)
        text = made.user(user, pub={"allow": lists["publish"]}, sub={"allow": lists["subscribe"]})
        files[user] = tmp_path / f"{user}.creds"
        files[user].write_text(text)
        files[user].chmod(0o600)
    return made.config(), {"creds": str(files["host"])}, {"user_credentials": str(files["router"])}


@pytest.mark.parametrize("mode", [accounts, operator], ids=["accounts", "operator"])
async def test_the_users_of_the_page_are_served(
    tmp_path: Path, start_server: StartServer, start_host: StartHost, start_router: StartRouter, mode: Any
) -> None:
    config, settings, options = mode(tmp_path)
    await start_server(config=config)
    host = await start_host(handlers=HANDLERS, sections={"nats": settings})
    router = await start_router(**options)
    for route in HANDLERS:
        assert (await router.request(route, b"x")).verdict is Verdict.COMPLETE
    # an answer by another connection than the one that got the request
    assert "refused" not in host.log_text()
    host.kill(0)
    assert (await router.request("echo", b"y")).verdict is Verdict.COMPLETE


@pytest.mark.parametrize("mode", [accounts, operator], ids=["accounts", "operator"])
async def test_a_route_that_the_page_does_not_grant_is_refused_by_name(
    tmp_path: Path, start_server: StartServer, new_host: NewHost, mode: Any
) -> None:
    config, settings, _ = mode(tmp_path)
    await start_server(config=config)
    host = new_host(handlers={"other": "echo"}, sections={"nats": settings})
    await host.launch()
    await host.log(lambda text: "ERROR" in text and subject_of("other") in text, timeout=20.0)
    assert not host.notifications.having("READY")
