"""`ajhost call`: what a router would send, and what it would get."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import string
import sys
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import click

from ajhost.cli.common import config_option, hint_at_settings_here, load_settings
from ajhost.cli.output import echo_error, printable, write
from ajhost.core.timings import CALL_CONNECT_LIMIT, ROUTER_SLACK
from ajhost.settings.values import NatsSettings, Settings

EXIT_COMPLETE, EXIT_ERROR, EXIT_TERMINATE, EXIT_NO_ANSWER = 0, 1, 2, 3
_SECOND = 1_000_000_000
_ID_ALPHABET = string.digits + string.ascii_letters
_EPILOG = """\b
Examples:
  ajhost call email:new '{"to": "ada@example.net"}'
  ajhost call report:daily @request.json --timeout 300
  echo -n hello | ajhost call echo -
  ajhost call email:new --route ""        as a router whose catch-all it is
  ajhost call email:new '{"to": "ada"}' --as-ajc      as `ajc tasks add` stores it
\b
Exit status: 0 complete (the reply's body on stdout), 1 AJ-Error, 2 AJ-Terminate (their texts on stderr),
3 no host or no answer, 78 bad configuration.
"""


@click.command(epilog=_EPILOG)
@click.argument("type_", metavar="TYPE")
@click.argument("payload", metavar="[PAYLOAD|@FILE|-]", required=False)
@config_option
@click.option(
    "--route", help='The route to ask for, "" the catch-all.  [default: the configured one that serves TYPE]'
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True, max=86_400),
    default=60.0,
    show_default=True,
    help="Seconds until the deadline that the handler is told; an answer is awaited 2 s longer, as routers do.",
)
@click.option("--no-deadline", is_flag=True, help="Tell no deadline; the host's default_timeout decides.")
@click.option("--tries", type=click.IntRange(min=1), default=1, show_default=True, help="Which try this is.")
@click.option("--max-tries", type=click.IntRange(min=1), default=10, show_default=True, help="The last try.")
@click.option(
    "--as-ajc",
    is_flag=True,
    help="Send PAYLOAD as `ajc tasks add` does: as a JSON text, JSON within it or not.",
)
@click.option("--queue", default="DEFAULT", show_default=True, help="The queue that the task names.")
@click.pass_context
def call(
    context: click.Context,
    type_: str,
    payload: str | None,
    config: Path,
    route: str | None,
    timeout: float,
    no_deadline: bool,
    tries: int,
    max_tries: int,
    as_ajc: bool,
    queue: str,
) -> int:
    """Send a task of TYPE as a router would, and print the reply's body.

    PAYLOAD is sent as it is given; @FILE sends a file, - what stdin holds. Without it the payload is null.
    """
    from ajhost.protocol.task import encode_task, read_task
    from ajhost.protocol.wire import encode_request

    data = _payload(payload)
    if as_ajc:
        data = json.dumps(data.decode(errors="replace")).encode()
    is_default = context.get_parameter_source("config") is click.core.ParameterSource.DEFAULT
    settings = _settings(config, is_default)
    now = time.time_ns()
    task = encode_task(
        id=_new_id(),
        type=type_,
        queue=queue,
        payload=data,
        created_ns=now,
        tried_ns=now,
        tries=tries,
        max_tries=max_tries,
    )
    try:
        read_task(task)
    except ValueError as error:
        raise click.UsageError(f"no router sends such a task: {error}") from None
    subject, headers, body = encode_request(
        _route(settings, type_) if route is None else route, task, now + int(timeout * _SECOND)
    )
    if no_deadline:
        del headers["AJ-Handler-Deadline"]
    nats = NatsSettings() if settings is None else settings.nats
    return asyncio.run(_ask(nats, subject, headers, body, timeout + ROUTER_SLACK))


def _payload(argument: str | None) -> bytes:
    if argument is None:
        return b""
    if argument == "-":
        return b"" if sys.stdin is None else sys.stdin.buffer.read()
    if argument.startswith("@"):
        try:
            return Path(argument[1:]).read_bytes()
        except OSError as error:
            raise click.UsageError(f"{argument[1:]}: {error.strerror or error}") from None
    return os.fsencode(argument)


def _settings(config: Path, is_default: bool) -> Settings | None:
    """The settings; None if nobody named the file and it is not there for us, for then the defaults may do."""
    if (
        is_default
        and not os.access(config, os.R_OK)
        and not any("__" in n for n in os.environ if n[:7] == "AJHOST_")
    ):
        servers = ", ".join(NatsSettings().servers)
        echo_error(f"{config} cannot be read; using {servers}{hint_at_settings_here(config)}")
        return None
    return load_settings(config)


def _route(settings: Settings | None, type_: str) -> str:
    from ajhost.core.routing import Routes

    if settings is None:
        return type_
    return Routes(handler.route for handler in settings.handlers).match(type_, type_) or ""


def _new_id() -> str:
    """Of the same shape as the router's (a KSUID of these years)."""
    return "3" + "".join(secrets.choice(_ID_ALPHABET) for _ in range(26))


async def _ask(nats: NatsSettings, subject: str, headers: dict[str, str], body: bytes, timeout: float) -> int:
    from ajhost.adapters.nats.connection import addresses
    from ajhost.adapters.nats.requests import ConnectFailed, NoResponders, request_once

    where = f"{subject} (NATS at {addresses(nats)})"
    limit = asyncio.timeout(timeout + CALL_CONNECT_LIMIT)
    try:
        async with limit, _shown(f"waiting for an answer on {subject}", timeout):
            reply = await request_once(nats, subject, headers, body, timeout)
    except NoResponders:
        echo_error(f"no host: nobody serves {where}")
        return EXIT_NO_ANSWER
    except TimeoutError:
        if limit.expired():
            echo_error(f"cannot reach NATS at {addresses(nats)}: no connection in time")
        else:
            echo_error(f"no answer within {timeout:g} s on {where}")
        return EXIT_NO_ANSWER
    except ConnectFailed as error:
        echo_error(f"cannot reach {error}")
        return EXIT_NO_ANSWER
    except Exception as error:  # the client's own errors: a payload too large, a connection that was cut
        echo_error(f"no answer on {where}: {type(error).__name__}: {error}")
        return EXIT_NO_ANSWER
    return _tell(reply.headers, reply.body)


def _tell(headers: Mapping[str, str], body: bytes) -> int:
    """As the router reads a reply: AJ-Terminate before AJ-Error, a blank value is none."""
    for name, status in (("AJ-Terminate", EXIT_TERMINATE), ("AJ-Error", EXIT_ERROR)):
        if text := headers.get(name, "").strip():
            echo_error(f"{name}: {printable(text)}")
            return status
    if body and not body.endswith(b"\n") and sys.stdout is not None and sys.stdout.isatty():
        body += b"\n"
    write(body)
    return EXIT_COMPLETE


@contextlib.asynccontextmanager
async def _shown(text: str, seconds: float) -> AsyncIterator[None]:
    """On a terminal, a line that says what is waited for and how much longer."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield
        return
    ticking = asyncio.create_task(_tick(text, asyncio.get_running_loop().time() + seconds))
    try:
        yield
    finally:
        ticking.cancel()
        _line("")


async def _tick(text: str, end: float) -> None:
    while (left := end - asyncio.get_running_loop().time()) > 0:
        _line(f"{text}, {left:.0f} s left")
        await asyncio.sleep(1)


def _line(text: str) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()
