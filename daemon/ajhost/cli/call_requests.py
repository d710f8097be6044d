"""The requests of `ajhost call`: their payload, signed for `--sign`, the answer and its exit status, and for `--count`
a load test: when each request is due by `--rate`, and the summary with its percentiles.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import click

from ajhost.cli import exit_status
from ajhost.cli.output import show_progress
from ajhost.core.timings import CALL_CONNECT_LIMIT
from ajhost.settings.sections import NatsSettings

if TYPE_CHECKING:
    from ajhost.adapters.nats.requester import Requester

COMPLETE, ERROR, TERMINATE, NO_RESPONDERS, NO_ANSWER = (
    "complete", "AJ-Error", "AJ-Terminate", "no responders", "no answer",
)  # fmt: skip
_LONGEST_SEED = 4096
"""Bytes that are read of a file that should hold a seed: a device may never end."""
_STATUS = {COMPLETE: exit_status.OK, ERROR: exit_status.NO, TERMINATE: exit_status.TERMINATED}


class Request(NamedTuple):
    """One request as a router sends it, and the id of its task."""

    id: str
    subject: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """The outcome of a request. `text`: that of AJ-Error or AJ-Terminate, or why there was no answer."""

    id: str
    outcome: str
    text: str
    body: bytes
    seconds: float

    @property
    def status(self) -> int:
        """Returns the exit status of a command that sent only this request."""
        return _STATUS.get(self.outcome, exit_status.NO_ANSWER)

    @property
    def reason(self) -> str:
        """Returns the stable word at the beginning of an answer's error text; empty for none."""
        return self.text.partition(":")[0] if self.outcome in (ERROR, TERMINATE) else ""

    def as_object(self) -> dict[str, object]:
        """Returns the answer as `--json` prints it; a body that is no UTF-8 is `body_base64`."""
        found: dict[str, object] = {"id": self.id, "outcome": self.outcome, "seconds": round(self.seconds, 6)}
        if self.outcome != COMPLETE:
            return found | {"text": self.text}
        try:
            return found | {"body": self.body.decode()}
        except UnicodeDecodeError:
            return found | {"body_base64": base64.b64encode(self.body).decode()}


def encode(seed: bytes | None, **fields: Any) -> bytes:
    """Returns the task's JSON, signed if there is a seed."""
    from ajhost.protocol.signature import sign
    from ajhost.protocol.task_record import encode_task, read_task

    task = encode_task(**fields)
    if seed is None:
        return task
    try:
        return encode_task(**fields, signature=sign(read_task(task), seed))
    except ValueError as error:
        raise click.UsageError(f"such a task cannot be signed: {error}") from None


def read_signing_seed(file: Path) -> bytes:
    """Reads the NKEY seed of `--sign`."""
    from ajhost.protocol.signature import read_seed

    try:
        with file.open("rb") as opened:
            return read_seed(opened.read(_LONGEST_SEED).decode("ascii", "replace"))
    except OSError as error:
        raise click.UsageError(f"--sign: {file}: {error.strerror or error}") from None
    except ValueError as error:
        raise click.UsageError(f"--sign: {file}: {error}") from None


def payload_of(argument: str | None) -> bytes:
    """Returns the payload that the command line gives, or names: `-` for standard input, `@FILE` for a file."""
    if argument is None:
        return b""
    if argument == "-":
        return b"" if sys.stdin is None else _read_payload(sys.stdin.buffer, "stdin")
    if argument.startswith("@"):
        try:
            with Path(argument[1:]).open("rb") as file:
                return _read_payload(file, argument[1:])
        except OSError as error:
            raise click.UsageError(f"{argument[1:]}: {error.strerror or error}") from None
    return os.fsencode(argument)


def _read_payload(file: BinaryIO, name: str) -> bytes:
    from ajhost.protocol.server_info import MOST_MAX_PAYLOAD

    data = file.read(MOST_MAX_PAYLOAD + 1)
    if len(data) > MOST_MAX_PAYLOAD:  # nats-server, `MAX_PAYLOAD_MAX_SIZE`; and /dev/zero never ends
        raise click.UsageError(f"{name}: more than {MOST_MAX_PAYLOAD >> 20} MiB, which no NATS server takes")
    return data


async def ask(nats: NatsSettings, request: Request, timeout: float) -> Answer:
    """Connects and sends one request. On a terminal it shows the subject and the time left meanwhile."""
    from ajhost.adapters.nats.connection import addresses
    from ajhost.adapters.nats.requester import ConnectFailed, Requester

    limit, begun = asyncio.timeout(timeout + CALL_CONNECT_LIMIT), time.monotonic()
    waiting = f"waiting for an answer on {request.subject}"
    try:
        async with limit, _shown(waiting, timeout), Requester(nats) as requester:
            return await ask_over(requester, request, timeout, addresses(nats), time.monotonic())
    except ConnectFailed as error:
        text = f"cannot reach {error}"
    except TimeoutError:
        text = f"cannot reach NATS at {addresses(nats)}: no connection in time"
    return Answer(request.id, NO_ANSWER, text, b"", time.monotonic() - begun)


async def ask_over(requester: Requester, request: Request, timeout: float, servers: str, due: float) -> Answer:
    from ajhost.adapters.nats.requester import NoResponders
    from ajhost.protocol.reply_encoding import error_of

    where = f"{request.subject} (NATS at {servers})"
    outcome, text, body = NO_ANSWER, "", b""
    try:
        reply = await requester.ask(request.subject, request.headers, request.body, timeout)
    except NoResponders:
        outcome, text = NO_RESPONDERS, f"no host: nobody serves {where}"
    except TimeoutError:
        text = f"no answer within {timeout:g} s on {where}"
    except Exception as error:  # the client's own errors: a payload too large, a connection that was cut
        text = f"no answer on {where}: {type(error).__name__}: {error}"
    else:
        said = error_of(reply.headers)
        outcome, text, body = (COMPLETE, "", reply.body) if said is None else (*said, b"")
    return Answer(request.id, outcome, text, body, time.monotonic() - due)


# -- with --count --------------------------------------------------------------------------------


@dataclass(slots=True)
class LoadTest:
    """Many requests, `rate` a second, or one after the other without a rate.

    `make` makes the next one. The time of an answer counts from when its request was due, so that a host which is too
    slow for the rate can be seen.
    """

    make: Callable[[], Request]
    timeout: float
    count: int
    rate: float | None
    answers: list[Answer] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)
    """When the connection was made; before that, when this object was."""

    async def run(self, nats: NatsSettings, heard: Callable[[Answer], None]) -> str | None:
        """Sends `count` requests, and passes each answer to `heard`. Returns a text if no server can be reached."""
        from ajhost.adapters.nats.connection import addresses
        from ajhost.adapters.nats.requester import ConnectFailed, Requester

        where = addresses(nats)
        try:
            async with Requester(nats) as requester, asyncio.TaskGroup() as asking:

                async def one(request: Request, due: float) -> None:
                    answer = await ask_over(requester, request, self.timeout, where, due)
                    self.answers.append(answer)
                    heard(answer)

                self.begun = time.monotonic()
                for number in range(self.count):
                    if self.rate is None:
                        await one(self.make(), time.monotonic())
                        continue
                    due = self.begun + number / self.rate
                    await asyncio.sleep(max(due - time.monotonic(), 0.0))
                    asking.create_task(one(self.make(), due))
        except ConnectFailed as error:
            return f"cannot reach {error}"
        return None

    def summary(self) -> dict[str, Any]:
        """Returns counts by outcome and by error reason, the rate of answers, and quantiles of their times (s)."""
        seconds = time.monotonic() - self.begun
        answered = sorted(answer.seconds for answer in self.answers if answer.outcome in _STATUS)
        reasons = Counter(answer.reason for answer in self.answers if answer.reason)
        return {
            "requests": len(self.answers),
            "seconds": round(seconds, 3),
            "per_second": round(len(answered) / seconds, 3) if seconds else 0.0,
            "outcomes": dict(Counter(answer.outcome for answer in self.answers)),
            "reasons": dict(reasons.most_common()),
            "latency_s": {
                name: round(_quantile(answered, share), 6)
                for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0))
                if answered
            },
        }

    def summary_text(self) -> str:
        figures = self.summary()
        rate = f"{figures['per_second']:.4g} answers per second"
        lines = [f"{len(self.answers)} requests in {figures['seconds']:.2f} s, {rate}"]
        reasons = Counter((answer.outcome, answer.reason) for answer in self.answers)
        lines += [
            f"{count:>8}  {outcome}{f', {reason}' if reason else ''}"
            for (outcome, reason), count in reasons.most_common()
        ]
        if latency := figures["latency_s"]:
            lines.append(", ".join(f"{name} {value * 1000:.3g} ms" for name, value in latency.items()))
        return "\n".join(lines)

    @property
    def status(self) -> int:
        """Returns the exit status: 0 if all completed, 3 if none was answered, else 1."""
        if self.answers and all(answer.outcome == COMPLETE for answer in self.answers):
            return exit_status.OK
        answered = any(answer.outcome in _STATUS for answer in self.answers)
        return exit_status.NO if answered else exit_status.NO_ANSWER


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


# -- on a terminal --------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _shown(text: str, seconds: float) -> AsyncIterator[None]:
    """Shows a text and the seconds left on standard error, if that is a terminal, until the block ends."""
    if not sys.stderr.isatty():
        yield
        return
    ticking = asyncio.create_task(_tick(text, asyncio.get_running_loop().time() + seconds))
    try:
        yield
    finally:
        ticking.cancel()
        show_progress("")


async def _tick(text: str, end: float) -> None:
    while (left := end - asyncio.get_running_loop().time()) > 0:
        show_progress(f"{text}, {left:.0f} s left")
        await asyncio.sleep(1)


@contextlib.contextmanager
def progress(count: int) -> Iterator[Callable[[], None]]:
    """Shows a bar on standard error, if that is a terminal. Yields a function to call for each answer."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    with click.progressbar(length=count, label="answers", file=sys.stderr, show_pos=True) as bar:
        yield lambda: bar.update(1)
