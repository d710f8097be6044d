"""`ajhost call`: what it sends, what it prints, and how it ends."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import pty
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nats
import pytest
from nacl.signing import SigningKey
from nats.aio.client import Client
from nats.aio.msg import Msg

from ajhost.protocol.signature import verify
from ajhost.protocol.task_record import read_task
from tests.support.factories import StartHost
from tests.support.nats import NatsServer, free_port, round_trip
from tests.support.program import CommandResult, run
from tests.support.terminal import Terminal

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "daemon")}
PROGRAM = (sys.executable, "-m", "ajhost", "call")


@pytest.fixture
async def client(nats_server: NatsServer) -> AsyncIterator[Client]:
    client = await nats.connect(nats_server.url)
    yield client
    await client.close()


@pytest.fixture
def config(nats_server: NatsServer, tmp_path: Path) -> Path:
    return configure(tmp_path, nats_server.url)


def configure(directory: Path, *servers: str) -> Path:
    """Three routes, the catch-all not among them."""
    routes = ("echo", "email:", "email:new")
    handlers = "".join(f'[handlers."{route}"]\ntarget = "app:f"\n' for route in routes)
    (directory / "ajhost.toml").write_text(f"[nats]\nservers = {json.dumps(servers)}\n{handlers}")
    (directory / "ajhost.toml").chmod(0o600)  # some have a password
    return directory / "ajhost.toml"


async def answer(client: Client, subject: str, reply: Callable[[Msg], tuple[bytes, dict[str, str]]]) -> list[Msg]:
    """Answers every request on a subject; the requests, as they come."""
    requests: list[Msg] = []

    async def take(message: Msg) -> None:
        requests.append(message)
        body, headers = reply(message)
        await client.publish(message.reply, body, headers=headers or None)

    await client.subscribe(subject, cb=take)
    await round_trip(client)
    return requests


async def silence(client: Client, subject: str) -> asyncio.Event:
    """Serves a subject and never answers; set when a request has come."""
    asked = asyncio.Event()

    async def take(message: Msg) -> None:
        asked.set()

    await client.subscribe(subject, cb=take)
    await round_trip(client)
    return asked


async def call(config: Path, *arguments: str, stdin: bytes | None = None) -> CommandResult:
    return await run(*PROGRAM, "-c", config, *arguments, env=ENVIRONMENT, stdin=stdin)


async def test_it_sends_what_a_router_sends_and_prints_the_body(client: Client, config: Path) -> None:
    requests = await answer(client, "CHORIA_AJ.H.T.echo", lambda _: (b"done\xff", {}))
    began = datetime.now(UTC)
    arguments = ("echo", '{"a": 1}', "--tries", "3", "--queue", "Q", "--timeout", "30")
    process = await asyncio.create_subprocess_exec(
        *(*PROGRAM, "-c", config, *arguments), env=ENVIRONMENT, stdout=-1, stderr=-1
    )
    stdout, stderr = await process.communicate()
    ended = datetime.now(UTC)
    assert (process.returncode, stdout, stderr) == (0, b"done\xff", b"")
    (request,) = requests
    task = json.loads(request.data)
    assert base64.b64decode(task["payload"]) == b'{"a": 1}'
    assert (task["type"], task["queue"], task["tries"], task["state"]) == ("echo", "Q", 3, "active")
    assert len(task["id"]) == 27
    assert request.headers is not None
    assert request.headers["AJ-Content-Type"] == "application/x-asyncjobs-task+json"
    deadline = datetime.fromisoformat(request.headers["AJ-Handler-Deadline"])
    assert began + timedelta(seconds=28) < deadline <= ended + timedelta(seconds=31)


@pytest.mark.parametrize(
    ("type_", "more", "subject"),
    [
        ("email:new", (), "email:new"),
        ("email:old", (), "email:"),
        ("other", (), "other"),
        ("email:new", ("--route", ""), "catchall"),
        ("email:new", ("--route", "e"), "e"),
    ],
)
async def test_the_route_is_the_one_that_serves_the_type_unless_it_is_said(
    client: Client, config: Path, type_: str, more: tuple[str, ...], subject: str
) -> None:
    requests = await answer(client, f"CHORIA_AJ.H.T.{subject}", lambda _: (b"", {}))
    result = await call(config, type_, "x", *more)
    assert (result.status, result.stdout) == (0, "")
    assert json.loads(requests[0].data)["type"] == type_


async def test_a_type_without_a_route_goes_to_the_catch_all_where_the_settings_have_it(
    client: Client, config: Path
) -> None:
    requests = await answer(client, "CHORIA_AJ.H.T.catchall", lambda _: (b"", {}))
    with config.open("a") as file:
        file.write('[handlers.""]\ntarget = "app:f"\n')
    assert (await call(config, "other")).status == 0
    assert len(requests) == 1


async def test_any_subject_can_be_asked_on(client: Client, config: Path) -> None:
    requests = await answer(client, "go.responders.email", lambda _: (b"sent", {}))
    result = await call(config, "email:new", "x", "--subject", "go.responders.email")
    assert (result.status, result.stdout) == (0, "sent")
    assert json.loads(requests[0].data)["type"] == "email:new"


async def test_a_task_is_signed_as_a_producer_signs_it_and_a_bad_seed_is_told_without_it(
    client: Client, config: Path
) -> None:
    requests = await answer(client, "CHORIA_AJ.H.T.echo", lambda _: (b"", {}))
    key = SigningKey.generate()
    seed = config.with_name("seed.hex")
    seed.write_text(f"{key.encode().hex()}\n")
    assert (await call(config, "echo", '{"a": 1}', "--sign", str(seed), "--tries", "2")).status == 0
    task = read_task(requests[0].data)
    assert verify(task, [key.verify_key.encode()]) is None
    assert verify(task, [SigningKey.generate().verify_key.encode()]) is not None
    seed.write_text("s3cret")
    bad = await call(config, "echo", "--sign", str(seed))
    assert (bad.status, "a signing seed must be hexadecimal" in bad.stderr) == (2, True)
    assert "s3cret" not in bad.stderr


async def test_a_host_that_demands_signatures_runs_what_was_signed_by_a_key_of_its_settings(
    tmp_path: Path, start_host: StartHost
) -> None:
    known, other = SigningKey.generate(), SigningKey.generate()
    for name, key in (("known", known), ("other", other)):
        (tmp_path / name).write_text(key.encode().hex())
    sections = {"signature": {"keys": [known.verify_key.encode().hex()]}}
    host = await start_host(sections=sections)
    signed = await host.command("call", "echo", "x", "--sign", str(tmp_path / "known"))
    assert (signed.status, signed.stdout) == (0, "x"), signed
    for refused in ((), ("--sign", str(tmp_path / "other"))):
        result = await host.command("call", "echo", "x", *refused)
        assert (result.status, "bad request: " in result.stderr) == (1, True), result


async def test_a_terminal_sees_how_many_of_many_calls_were_answered(client: Client, config: Path) -> None:
    heard, goes_on = list[Msg](), asyncio.Event()

    async def take(message: Msg) -> None:
        heard.append(message)
        if len(heard) == 4:
            await goes_on.wait()
        await message.respond(b"")

    await client.subscribe("CHORIA_AJ.H.T.echo", cb=take)
    await round_trip(client)
    command = (*PROGRAM, "-c", str(config), "echo", "--count", "8")
    async with Terminal(*command, env=ENVIRONMENT | {"TERM": "xterm"}) as terminal:
        half = await terminal.shows(" 3/8")
        assert re.search(r"answers  \[#+-+\]  3/8", "\n".join(half)), half
        goes_on.set()
        whole = await terminal.shows("complete")
        assert any(re.search(r"answers  \[#+\]  8/8", line) for line in whole), whole
        assert await terminal.ended() == 0


async def test_many_calls_have_a_summary_of_outcomes_and_times(client: Client, config: Path) -> None:
    requests: list[Msg] = []

    def reply(message: Msg) -> tuple[bytes, dict[str, str]]:
        requests.append(message)
        return b"ok", {"AJ-Error": "handler error: no"} if len(requests) % 5 == 0 else {}

    await answer(client, "CHORIA_AJ.H.T.echo", reply)
    result = await call(config, "echo", "--count", "20", "--rate", "100")
    assert result.status == 1, result
    assert len({json.loads(request.data)["id"] for request in requests}) == 20
    first, *counts, times = result.stdout.splitlines()
    assert re.fullmatch(r"20 requests in 0\.\d\d s, \S+ answers per second", first)
    assert [line.split(maxsplit=1) for line in counts] == [
        ["16", "complete"],
        ["4", "AJ-Error, handler error"],
    ]
    assert re.fullmatch(r"p50 \S+ ms, p90 \S+ ms, p99 \S+ ms, max \S+ ms", times)
    assert result.stderr == "", "a bar is for terminals"

    lines = (await call(config, "echo", "--count", "3", "--json")).stdout.splitlines()
    *answers, last = map(json.loads, lines)
    assert [a["outcome"] for a in answers] == ["complete"] * 3
    assert [a["body"] for a in answers] == ["ok"] * 3
    assert (last["summary"]["requests"], last["summary"]["outcomes"]) == (3, {"complete": 3})

    (alone,) = (await call(config, "echo", "--json")).stdout.splitlines()
    assert json.loads(alone)["outcome"] == "complete"


async def test_answers_that_come_all_at_once_are_all_heard(client: Client, config: Path) -> None:
    held: list[Msg] = []

    async def take(message: Msg) -> None:
        held.append(message)
        if len(held) == 100:
            for request in held:
                await client.publish(request.reply, b"ok")

    await client.subscribe("CHORIA_AJ.H.T.echo", cb=take)
    await round_trip(client)
    result = await call(config, "echo", "--count", "100", "--rate", "1000", "--timeout", "8")
    assert (result.status, result.stdout.splitlines()[1].split()) == (0, ["100", "complete"]), result


async def test_many_calls_that_nobody_answers_end_with_3_and_an_interrupt_has_its_summary(
    client: Client, config: Path
) -> None:
    nobody = await call(config, "echo", "--count", "3")
    assert nobody.status == 3
    assert nobody.stdout.splitlines()[1].split(maxsplit=1) == ["3", "no responders"]
    heard, third = list[Msg](), asyncio.Event()

    def reply(message: Msg) -> tuple[bytes, dict[str, str]]:
        heard.append(message)
        if len(heard) == 3:  # the first has been answered long ago
            third.set()
        return b"", {}

    await answer(client, "CHORIA_AJ.H.T.echo", reply)
    process = await asyncio.create_subprocess_exec(
        *PROGRAM,
        "-c",
        config,
        "echo",
        "--count",
        "9999",
        "--rate",
        "20",
        env=ENVIRONMENT,
        stdout=-1,
        stderr=-1,
    )
    async with asyncio.timeout(60):
        await third.wait()
        process.send_signal(signal.SIGINT)
        stdout, stderr = await process.communicate()
    assert (process.returncode, stderr.strip()) == (130, b"")
    assert b" complete\n" in stdout


async def test_a_payload_is_an_argument_a_file_stdin_or_nothing(client: Client, config: Path) -> None:
    await answer(client, "CHORIA_AJ.H.T.echo", lambda m: (json.dumps(json.loads(m.data)["payload"]).encode(), {}))
    file = config.with_name("payload")
    file.write_bytes(b"from a file\n")

    async def sent(*arguments: str, stdin: bytes | None = None) -> bytes | None:
        result = await call(config, "echo", *arguments, stdin=stdin)
        assert result.status == 0, result
        text = json.loads(result.stdout)
        return None if text is None else base64.b64decode(text)

    assert await sent("as it is\n") == b"as it is\n"
    assert await sent(os.fsdecode(b"\xff\xfe")) == b"\xff\xfe"
    assert await sent(f"@{file}") == b"from a file\n"
    assert await sent("-", stdin=b"from \0 stdin") == b"from \0 stdin"
    assert await sent() is None


async def test_without_a_deadline_the_header_is_left_out(client: Client, config: Path) -> None:
    requests = await answer(client, "CHORIA_AJ.H.T.echo", lambda _: (b"", {}))
    assert (await call(config, "echo", "--no-deadline")).status == 0
    assert list(requests[0].headers or {}) == ["AJ-Content-Type"]


@pytest.mark.parametrize(
    ("headers", "status", "text"),
    [
        ({"AJ-Error": "handler error: no disk"}, 1, "AJ-Error: handler error: no disk\n"),
        ({"AJ-Terminate": "no recipient"}, 2, "AJ-Terminate: no recipient\n"),
        ({"AJ-Error": "a", "AJ-Terminate": "b"}, 2, "AJ-Terminate: b\n"),
        ({"AJ-Error": "red \x1b[31m"}, 1, "AJ-Error: red ?[31m\n"),
        ({"Other": "x"}, 0, ""),
    ],
)
async def test_errors_go_to_stderr_with_a_status_of_their_own(
    client: Client, config: Path, headers: dict[str, str], status: int, text: str
) -> None:
    await answer(client, "CHORIA_AJ.H.T.echo", lambda _: (b"body", headers))
    result = await call(config, "echo")
    assert (result.status, result.stderr) == (status, text)
    assert result.stdout == ("body" if status == 0 else "")


async def test_no_host_and_no_answer_and_no_server_are_three_texts_and_one_status(
    client: Client, nats_server: NatsServer, config: Path, tmp_path: Path
) -> None:
    nobody = await call(config, "echo")
    assert (nobody.status, nobody.stdout) == (3, "")
    assert nobody.stderr == f"no host: nobody serves CHORIA_AJ.H.T.echo (NATS at 127.0.0.1:{nats_server.port})\n"
    await silence(client, "CHORIA_AJ.H.T.echo")
    silent = await call(config, "echo", "--timeout", "0.2")
    assert silent.status == 3
    assert silent.stderr.startswith("no answer within 2.2 s on CHORIA_AJ.H.T.echo")
    gone = await call(configure(tmp_path, f"nats://u:secret@127.0.0.1:{free_port()}"), "echo", "--timeout", "0.2")
    assert gone.status == 3
    assert gone.stderr.startswith("cannot reach NATS at 127.0.0.1:")
    assert "secret" not in gone.stderr


async def test_a_payload_that_the_server_would_not_take_is_told_without_a_traceback(
    client: Client, config: Path
) -> None:
    await silence(client, "CHORIA_AJ.H.T.echo")
    result = await call(config, "echo", "-", stdin=b"x" * (1 << 20))
    assert result.status == 3
    assert "maximum payload" in result.stderr
    assert "Traceback" not in result.stderr


async def test_an_interrupt_ends_it_with_130_and_no_traceback(client: Client, config: Path) -> None:
    asked = await silence(client, "CHORIA_AJ.H.T.echo")
    process = await asyncio.create_subprocess_exec(
        *PROGRAM, "-c", config, "echo", env=ENVIRONMENT, stdout=-1, stderr=-1
    )
    await asyncio.wait_for(asked.wait(), 60)
    process.send_signal(signal.SIGINT)
    stdout, stderr = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, stdout) == (130, b"")
    assert stderr.strip() == b""


async def test_a_reader_that_has_gone_ends_it_quietly(client: Client, config: Path) -> None:
    await answer(client, "CHORIA_AJ.H.T.echo", lambda _: (b"x", {}))
    read_end, write_end = os.pipe()
    os.close(read_end)
    process = await asyncio.create_subprocess_exec(
        *PROGRAM, "-c", config, "echo", env=ENVIRONMENT, stdout=write_end, stderr=-1
    )
    os.close(write_end)
    _, stderr = await process.communicate()
    assert (process.returncode, stderr) == (128 + signal.SIGPIPE, b"")


async def test_a_full_disk_is_told(client: Client, config: Path) -> None:
    await answer(client, "CHORIA_AJ.H.T.echo", lambda _: (b"x", {}))
    with Path("/dev/full").open("wb") as full:
        process = await asyncio.create_subprocess_exec(
            *PROGRAM, "-c", config, "echo", env=ENVIRONMENT, stdout=full, stderr=-1
        )
        _, stderr = await process.communicate()
    assert (process.returncode, stderr) == (74, b"cannot write: No space left on device\n")


async def test_a_terminal_sees_that_it_waits_and_for_how_long(client: Client, config: Path) -> None:
    asked = await silence(client, "CHORIA_AJ.H.T.echo")
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        *PROGRAM, "-c", config, "echo", "--timeout", "40", env=ENVIRONMENT, stderr=theirs
    )
    os.close(theirs)
    await asyncio.wait_for(asked.wait(), 60)
    seen = b""
    while b"left" not in seen:
        seen += await asyncio.to_thread(os.read, ours, 1024)
    assert b"waiting for an answer on CHORIA_AJ.H.T.echo, 42 s left" in seen
    process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(process.wait(), 20) == 130
    os.close(ours)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "Missing argument 'TYPE'"),
        (("a b",), "type must be letters"),
        (("echo", "@/no/such/file"), "no such file"),
        (("echo", "--timeout", "0"), "--timeout"),
        (("echo", "--tries", "none"), "--tries"),
        (("echo", "--rate", "3"), "--rate is for --count"),
        (("echo", "--count", "0"), "--count"),
        (("echo", "--subject", "a.*"), "no subject that can be asked on"),
        (("echo", "--subject", "a", "--route", "b"), "one of the two"),
        (("echo", "--sign", "/no/such/file"), "no such file"),
        (("echo", "--sign", "/dev/zero"), "must be hexadecimal"),
        (("echo", "@/dev/zero"), "/dev/zero: more than 64 MiB"),
        (("echo", "--route", "a b"), "no route that can be asked for"),
        (("echo", "--tries", "9" * 20), "64-bit"),
        (("echo", "--sign", "/dev/null", "--queue", ""), "seed must have 32 bytes"),
    ],
)
async def test_wrong_usage_exits_2(tmp_path: Path, arguments: tuple[str, ...], text: str) -> None:
    result = await call(configure(tmp_path, "nats://127.0.0.1:1"), *arguments)
    assert result.status == 2
    assert text.lower() in result.stderr.lower()


async def test_a_bad_configuration_exits_78_with_every_problem(tmp_path: Path) -> None:
    result = await call(configure(tmp_path, "ws://a", "http://b"), "echo")
    assert result.status == 78
    assert len(result.stderr.splitlines()) == 2
