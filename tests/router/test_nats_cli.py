"""The `nats` command in both directions: as a router by hand, and as a host by hand."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support import processes
from tests.support.factories import Enter, NewHost, StartHost
from tests.support.nats import NatsServer
from tests.support.program import Program, run
from tests.support.router import CONTENT_TYPE, task_json


async def test_nats_request_is_answered_by_a_host(
    nats_cli: Path, jetstream: NatsServer, context: dict[str, str], start_host: StartHost
) -> None:
    await start_host(handlers={"email:new": "work"})
    asked = await run(
        *(
            nats_cli,
            "request",
            "--raw",
            "-H",
            f"AJ-Content-Type:{CONTENT_TYPE}",
            "CHORIA_AJ.H.T.email:new",
        ),
        task_json("email:new", {"kind": "ok"}, id="by-hand").decode(),
        env=context,
    )
    assert asked.status == 0, asked
    assert json.loads(asked.stdout)["id"] == "by-hand"


async def test_nats_request_shows_an_error_as_a_header(
    nats_cli: Path, jetstream: NatsServer, context: dict[str, str], start_host: StartHost
) -> None:
    await start_host(handlers={"email:new": "work"})
    asked = await run(
        *(nats_cli, "request", "CHORIA_AJ.H.T.email:new"),
        task_json("email:new", {"kind": "terminate", "text": "no recipient"}).decode(),
        env=context,
    )
    assert asked.status == 0, asked
    assert "AJ-Terminate: no recipient" in asked.stderr


async def test_nats_micro_shows_a_host_with_its_routes_and_what_became_of_their_tasks(
    nats_cli: Path, jetstream: NatsServer, context: dict[str, str], start_host: StartHost
) -> None:
    handlers = {"email:new": "work", "": "echo", "mail": "shop:send"}
    source = "from dataclasses import dataclass\n@dataclass\nclass Mail:\n    to: str\ndef send(mail: Mail): pass\n"
    host = await start_host(handlers=handlers, modules={"shop": source})
    for kind in ("ok", "error", "ok"):
        await host.command("call", "email:new", json.dumps({"kind": kind}))
    for slot in list(host.workers()):
        await processes.gone(host.kill(slot))
    while (await host.status())["serving"] < 2:
        pass  # each look is a process
    listed = await run(nats_cli, "micro", "ls", env=context)
    assert "ajhost" in listed.stdout, listed
    asked = await run(nats_cli, "micro", "stats", "ajhost", "--json", env=context)
    (service,) = json.loads(asked.stdout)
    told = {endpoint["name"]: endpoint for endpoint in service["endpoints"]}
    assert (told["email-new"]["num_requests"], told["email-new"]["num_errors"]) == (3, 1)
    assert told["email-new"]["subject"] == "CHORIA_AJ.H.T.email:new"
    assert told["email-new"]["queue_group"] == "ajhost"
    assert told["catchall"]["num_requests"] == 0
    info = await run(nats_cli, "micro", "info", "ajhost", env=context)
    assert "CHORIA_AJ.H.T.email:new" in info.stdout, info
    info = await run(nats_cli, "micro", "info", "ajhost", "--json", env=context)
    (mail,) = [e for e in json.loads(info.stdout)["info"]["endpoints"] if e["name"] == "mail"]
    assert mail["metadata"]["payload"] == "Mail"
    assert json.loads(mail["metadata"]["schema"])["properties"]["to"] == {"title": "To", "type": "string"}
    pinged = await run(nats_cli, "micro", "ping", env=context)
    assert "ajhost" in pinged.stdout + pinged.stderr, pinged
    # a host that is drained is no service, until it is resumed
    assert (await host.command("drain", "--wait")).status == 0
    listed, pinged = [await run(nats_cli, "micro", verb, env=context) for verb in ("ls", "ping")]
    assert "ajhost" not in listed.stdout + listed.stderr + pinged.stdout, (listed, pinged)
    assert (await host.command("resume")).status == 0
    asked = await run(nats_cli, "micro", "stats", "ajhost", "--json", env=context)
    (service,) = json.loads(asked.stdout)
    assert {e["name"]: e["num_requests"] for e in service["endpoints"]}["email-new"] == 3


async def test_a_host_that_is_told_so_is_no_service(
    nats_cli: Path, jetstream: NatsServer, context: dict[str, str], start_host: StartHost
) -> None:
    await start_host(sections={"nats": {"service": False}})
    listed = await run(nats_cli, "micro", "ls", env=context)
    assert "ajhost" not in listed.stdout + listed.stderr


async def test_call_is_answered_by_nats_reply(
    nats_cli: Path, jetstream: NatsServer, context: dict[str, str], new_host: NewHost, enter: Enter
) -> None:
    host = new_host(handlers={"email:new": "echo"})
    reply = await enter(Program(nats_cli, "reply", "CHORIA_AJ.H.T.email:new", "served by hand", env=context))
    await reply.log.next("Listening on")
    called = await host.command("call", "email:new", '{"to": "x"}')
    assert (called.status, called.stdout.rstrip("\n")) == (0, "served by hand"), called
    await reply.log.next('"type":"email:new"')
    assert CONTENT_TYPE in reply.log.text()
    assert "AJ-Handler-Deadline" in reply.log.text()
