"""`ajhost check --connect`: what a NATS server does not let this host do is named, with what to grant."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest

from tests.cli.test_check import check, write
from tests.support.certificates import self_signed
from tests.support.factories import StartServer
from tests.support.nats import NatsServer, free_port
from tests.support.operator_mode import Operator
from tests.support.program import CommandResult
from tests.support.router import Router, Verdict

USERS = """
authorization {{
  users = [
    {{ user: host, password: pw, permissions: {permissions} }}
    {{ user: router, password: pw }}
  ]
}}
"""


async def connect(directory: Path, servers: list[str], **nats: str) -> CommandResult:
    keys = "".join(f"{key} = {json.dumps(value)}\n" for key, value in nats.items())
    text = f'[nats]\nservers = {json.dumps(servers)}\n{keys}[handlers."email:new"]\ntarget = "app:send"\n'
    return await check(write(directory, text), "--connect")


async def test_a_server_that_allows_everything_is_good(nats_server: NatsServer, tmp_path: Path) -> None:
    result = await connect(tmp_path, [nats_server.url])
    warnings = [line for line in result.stderr.splitlines() if "root imports and runs the handlers" not in line]
    assert (result.status, warnings) == (0, []), result


@pytest.mark.parametrize(
    ("permissions", "grant"),
    [
        (
            '{ subscribe: { deny: "CHORIA_AJ.H.T.>" } }',
            'permission to subscribe to "CHORIA_AJ.H.T.email:new"',
        ),
        ('{ publish: { deny: "_INBOX.>" } }', 'permission to publish to "_INBOX.'),
    ],
)
async def test_a_permission_that_is_missing_is_named(
    tmp_path: Path, start_server: StartServer, permissions: str, grant: str
) -> None:
    server = await start_server(config=USERS.format(permissions=permissions))
    result = await connect(tmp_path, [server.url], user="host", password="pw")
    assert result.status == 78
    assert f"NATS at {server.url.removeprefix('nats://')}: Permissions Violation" in result.stderr
    assert grant in result.stderr


async def test_credentials_that_are_refused_are_told_and_no_secret_is(
    tmp_path: Path, start_server: StartServer
) -> None:
    server = await start_server(config=USERS.format(permissions="{}"))
    result = await connect(tmp_path, [server.url], user="host", password="wrong-secret")
    assert result.status == 78
    assert "Authorization Violation" in result.stderr
    assert "wrong-secret" not in result.stderr


async def test_a_server_that_has_a_user_for_whoever_shows_no_credentials_is_shown_them(
    tmp_path: Path, start_server: StartServer
) -> None:
    # it asks for none (INFO without auth_required)
    config = """
        accounts: {
            SHOP: { users: [ { user: host, password: pw } ] }
            OTHERS: { users: [ { user: anybody, password: pw, permissions: { subscribe: { deny: ">" } } } ] }
        }
        no_auth_user: anybody
    """
    server = await start_server(config=config)
    assert (result := await connect(tmp_path, [server.url], user="host", password="pw")).status == 0, result
    assert (await connect(tmp_path, [server.url])).status == 78


async def test_what_lets_the_host_in_and_soon_expires_is_a_warning(tmp_path: Path, start_server: StartServer) -> None:
    operator = Operator()
    (tmp_path / "host.creds").write_text(operator.user("host", lasts=3600))
    (tmp_path / "host.creds").chmod(0o600)
    certificate, key = self_signed(tmp_path)  # for two days
    config = f'tls {{ cert_file: "{certificate}", key_file: "{key}" }}\n{operator.config()}'
    server = await start_server(config=config)
    nats = f'[nats]\nservers = ["{server.url.replace("nats:", "tls:")}"]\ncreds = "host.creds"\n'
    text = f'{nats}tls.ca = "{certificate}"\n[handlers."email:new"]\ntarget = "app:send"\n'
    result = await check(write(tmp_path, text), "--connect")
    assert result.status == 0, result
    found = re.findall(r"warning: NATS at \S+: (.*) expires at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", result.stderr)
    assert found == ["the server's certificate", "the user's JWT"], result


async def test_each_server_is_tried(nats_server: NatsServer, tmp_path: Path) -> None:
    gone = f"nats://127.0.0.1:{free_port()}"
    result = await connect(tmp_path, [nats_server.url, gone])
    assert result.status == 78
    (line,) = [line for line in result.stderr.splitlines() if "NATS at" in line]
    assert gone.removeprefix("nats://") in line
    assert "refused" in line


async def test_it_takes_no_request_from_anybody(nats_server: NatsServer, tmp_path: Path, router: Router) -> None:
    checking = asyncio.create_task(connect(tmp_path, [nats_server.url]))
    found = []
    while not checking.done():
        found.append((await router.request("email:new", b"x")).verdict)
    assert (await checking).status == 0
    assert set(found) <= {Verdict.NO_RESPONDERS}
