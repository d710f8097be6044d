"""`ajhost call`: sends a task as a router does, and prints the reply. Chooses the route to ask for (without `--route`
the configured one that serves the type) and the deadline. `call_requests.py` has the rest.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path

import click

from ajhost.cli.call_requests import (
    COMPLETE,
    ERROR,
    TERMINATE,
    Answer,
    LoadTest,
    Request,
    ask,
    encode,
    payload_of,
    progress,
    read_signing_seed,
)
from ajhost.cli.options import Duration, config_option, hint_at_settings_here, is_named, load_settings
from ajhost.cli.output import echo, echo_error, to_json, write
from ajhost.core.timings import ROUTER_SLACK
from ajhost.protocol.safe_text import printable
from ajhost.protocol.timestamps import SECOND
from ajhost.settings.sections import NatsSettings, Settings

_EPILOG = """\b
Examples:
  ajhost call email:new '{"to": "ada@example.net"}'
  ajhost call report:daily @request.json --timeout 5m
  echo -n hello | ajhost call echo -
  ajhost call email:new --route ""        as a router whose catch-all it is
  ajhost call email:new '{"to": "ada"}' --as-ajc      as `ajc tasks add` stores it
  ajhost call email:new @mail.json --sign seed.hex    as a producer that signs
  ajhost call echo hello --count 1000 --rate 100      and a summary
\b
Exit status: 0 complete (the reply's body on stdout), 1 AJ-Error, 2 AJ-Terminate (their texts on stderr),
3 no host or no answer, 78 bad configuration. With --count: 0 all complete, 1 some not, 3 no answer at all.
"""


@click.command(epilog=_EPILOG)
@click.argument("type_", metavar="TYPE")
@click.argument("payload", metavar="[PAYLOAD|@FILE|-]", required=False)
@config_option
@click.option(
    "--route",
    metavar="ROUTE",
    help='The route to ask for, "" the catch-all.  [default: the configured one that serves TYPE, or TYPE]',
)
@click.option("--subject", metavar="SUBJECT", help="Ask on this subject, whoever answers there, in place of a route's.")
@click.option(
    "--timeout",
    type=Duration(min=0, min_open=True, max=86_400),
    metavar="TIME",
    default="60s",
    show_default=True,
    help="How long until the deadline that the handler is told; an answer is awaited 2 s longer, as routers do.",
)
@click.option("--no-deadline", is_flag=True, help="Tell no deadline; the host's default_timeout decides.")
@click.option(
    "--tries", metavar="N", type=click.IntRange(min=1), default=1, show_default=True, help="Which try this is."
)
@click.option(
    "--max-tries", metavar="N", type=click.IntRange(min=1), default=10, show_default=True, help="The last try."
)
@click.option(
    "--as-ajc", is_flag=True, help="Send PAYLOAD as `ajc tasks add` does: as a JSON text, JSON within it or not."
)
@click.option(
    "--sign",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Sign the task with the seed in FILE (ed25519, 64 hex digits), as a producer of signed tasks does.",
)
@click.option("--count", metavar="N", type=click.IntRange(min=1), help="Send so many tasks, and print a summary.")
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    metavar="N",
    help="With --count: so many a second.  [default: each when the one before has its answer]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line: each answer, then the summary.")
@click.option("--queue", metavar="QUEUE", default="DEFAULT", show_default=True, help="The queue that the task names.")
def call(
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
    subject: str | None,
    sign: Path | None,
    count: int | None,
    rate: float | None,
    as_json: bool,
) -> int:
    """Send a task of TYPE as a router would, and print the reply's body.

    PAYLOAD is sent as it is given; @FILE sends a file, - what stdin holds. Without it the payload is null.

    With --count it is a small load test: the summary has the outcomes, the rate, and the times of the answers, each
    from when its request was due.
    """
    from ajhost.protocol.request_headers import encode_request
    from ajhost.protocol.task_record import new_id, read_task

    _check_usage(route, subject, count, rate)
    data = payload_of(payload)
    if as_ajc:
        data = json.dumps(data.decode(errors="replace")).encode()
    settings = _settings(config)
    seed = None if sign is None else read_signing_seed(sign)
    asked = _route(settings, type_) if route is None else route

    def make() -> Request:
        now, id_ = time.time_ns(), new_id()
        task = encode(seed, id=id_, type=type_, queue=queue, payload=data, created_ns=now, tried_ns=now,
                       tries=tries, max_tries=max_tries)  # fmt: skip
        by_route, headers, body = encode_request(asked, task, now + int(timeout * SECOND))
        if no_deadline:
            del headers["AJ-Handler-Deadline"]
        return Request(id_, by_route if subject is None else subject, headers, body)

    try:
        read_task((request := make()).body)
    except (ValueError, TypeError) as error:  # orjson's TypeError: a number of tries of more than 64 bits
        raise click.UsageError(f"no router sends such a task: {error}") from None
    nats = NatsSettings() if settings is None else settings.nats
    if count is not None:
        return _call_many(nats, LoadTest(make, timeout + ROUTER_SLACK, count, rate), as_json=as_json)
    answer = asyncio.run(ask(nats, request, timeout + ROUTER_SLACK))
    if as_json:
        echo(to_json(answer.as_object()))
    else:
        _tell(answer)
    return answer.status


def _call_many(nats: NatsSettings, test: LoadTest, *, as_json: bool) -> int:
    def heard(answer: Answer) -> None:
        advance()
        if as_json:
            echo(to_json(answer.as_object()))

    try:
        with progress(test.count) as advance:
            if (problem := asyncio.run(test.run(nats, heard))) is not None:
                echo_error(problem)
    except BaseExceptionGroup as group:  # the first error had the group cancel the rest
        raise group.exceptions[0] from None
    finally:  # also when Ctrl-C interrupts it
        if as_json:
            echo(to_json({"summary": test.summary()}))
        elif test.answers:
            echo(test.summary_text())
    return test.status


def _check_usage(route: str | None, subject: str | None, count: int | None, rate: float | None) -> None:
    from ajhost.protocol.frames import is_plain_subject
    from ajhost.protocol.subjects import subjects_of

    if rate is not None and count is None:
        raise click.UsageError("--rate is for --count")
    if route and not is_plain_subject(subjects_of(route)[0].encode(errors="surrogateescape")):
        raise click.UsageError(f"--route: {route!r} is no route that can be asked for")
    if subject is None:
        return
    if route is not None:
        raise click.UsageError("--route and --subject: one of the two")
    if not is_plain_subject(subject.encode(errors="surrogateescape")):
        raise click.UsageError(f"--subject: {subject!r} is no subject that can be asked on")


def _tell(answer: Answer) -> None:
    if answer.outcome != COMPLETE:
        name = f"{answer.outcome}: " if answer.outcome in (ERROR, TERMINATE) else ""
        echo_error(f"{name}{printable(answer.text)}")
        return
    body = answer.body
    if body and not body.endswith(b"\n") and sys.stdout is not None and sys.stdout.isatty():
        body += b"\n"
    write(body)


def _settings(config: Path) -> Settings | None:
    """Returns the settings; None if no `-c` names a file and the default one cannot be read: defaults apply then."""
    from ajhost.settings.environment import setting_variables

    if not is_named() and not os.access(config, os.R_OK) and not setting_variables(os.environ):
        servers = ", ".join(NatsSettings().servers)
        echo_error(f"{config} cannot be read; using {servers}{hint_at_settings_here(config)}")
        return None
    return load_settings(config)


def _route(settings: Settings | None, type_: str) -> str:
    from ajhost.core.route_match import Routes

    if settings is None:
        return type_
    found = Routes(handler.route for handler in settings.handlers).match(type_, type_)
    if found is None:
        return "" if settings.nats.catchall else type_
    return found
