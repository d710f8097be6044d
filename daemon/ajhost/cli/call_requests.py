"""What `ajhost call` asks and hears: one request, or many at a rate with a summary."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ajhost.cli import exit_status
from ajhost.cli.output import show_progress
from ajhost.core.timings import CALL_CONNECT_LIMIT
from ajhost.settings.values import NatsSettings

if TYPE_CHECKING:
    from ajhost.adapters.nats.requester import Requester

COMPLETE, ERROR, TERMINATE, NO_RESPONDERS, NO_ANSWER = (
    "complete", "AJ-Error", "AJ-Terminate", "no responders", "no answer",
)  # fmt: skip
_STATUS = {COMPLETE: exit_status.OK, ERROR: exit_status.NO, TERMINATE: exit_status.TERMINATED}


class Request(NamedTuple):
    """One request as a router sends it, and the id of its task."""

    id: str
    subject: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a request. `text`: that of AJ-Error or AJ-Terminate, or why there was no answer."""

    id: str
    outcome: str
    text: str
    body: bytes
    seconds: float

    @property
    def status(self) -> int:
        """The exit status of a command that asked for this alone."""
        return _STATUS.get(self.outcome, exit_status.NO_ANSWER)

    @property
    def reason(self) -> str:
        """The stable word with which an error text begins, if it is an answer's."""
        return self.text.partition(":")[0] if self.outcome in (ERROR, TERMINATE) else ""

    def as_object(self) -> dict[str, object]:
        """As `--json` prints it; a body that is no UTF-8 is `body_base64`."""
        found: dict[str, object] = {"id": self.id, "outcome": self.outcome, "seconds": round(self.seconds, 6)}
        if self.outcome != COMPLETE:
            return found | {"text": self.text}
        try:
            return found | {"body": self.body.decode()}
        except UnicodeDecodeError:
            return found | {"body_base64": base64.b64encode(self.body).decode()}


async def ask(nats: NatsSettings, request: Request, timeout: float) -> Answer:
    """Connects and asks once; on a terminal it shows what it waits for."""
    from ajhost.adapters.nats.connection import addresses
    from ajhost.adapters.nats.requester import ConnectFailed, Requester

    limit, begun = asyncio.timeout(timeout + CALL_CONNECT_LIMIT), time.monotonic()
    waiting = f"waiting for an answer on {request.subject}"
    try:
        async with limit, _shown(waiting, timeout), Requester(nats) as requester:
            return await _ask(requester, request, timeout, addresses(nats), time.monotonic())
    except ConnectFailed as error:
        text = f"cannot reach {error}"
    except TimeoutError:
        text = f"cannot reach NATS at {addresses(nats)}: no connection in time"
    return Answer(request.id, NO_ANSWER, text, b"", time.monotonic() - begun)


async def _ask(requester: Requester, request: Request, timeout: float, servers: str, due: float) -> Answer:
    from ajhost.adapters.nats.requester import NoResponders
    from ajhost.protocol.reply_encoding import error_of

    where = f"{request.subject} (NATS at {servers})"
    outcome, text = NO_ANSWER, ""
    try:
        reply = await requester.ask(request.subject, request.headers, request.body, timeout)
    except NoResponders:
        outcome, text = NO_RESPONDERS, f"no host: nobody serves {where}"
    except TimeoutError:
        text = f"no answer within {timeout:g} s on {where}"
    except Exception as error:  # the client's own errors: a payload too large, a connection that was cut
        text = f"no answer on {where}: {type(error).__name__}: {error}"
    else:
        if (said := error_of(reply.headers)) is not None:
            return Answer(request.id, *said, b"", time.monotonic() - due)
        return Answer(request.id, COMPLETE, "", reply.body, time.monotonic() - due)
    return Answer(request.id, outcome, text, b"", time.monotonic() - due)


# -- many requests ---------------------------------------------------------------------------------


@dataclass(slots=True)
class LoadTest:
    """Many requests, `rate` a second, or one after the other without one.

    `make` makes the next one. The time of an answer counts from when its request was due: a host that is too slow for
    the rate shows.
    """

    make: Callable[[], Request]
    timeout: float
    count: int
    rate: float | None
    answers: list[Answer] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)
    """When it was connected; before that, when it was made."""

    async def run(self, nats: NatsSettings, heard: Callable[[Answer], None]) -> str | None:
        """Asks `count` times, and tells of each answer. Returns why not, if there is no server."""
        from ajhost.adapters.nats.connection import addresses
        from ajhost.adapters.nats.requester import ConnectFailed, Requester

        where = addresses(nats)
        try:
            async with Requester(nats) as requester, asyncio.TaskGroup() as asking:

                async def one(request: Request, due: float) -> None:
                    answer = await _ask(requester, request, self.timeout, where, due)
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
        """Counts by outcome and by the reasons of errors, the rate of answers, quantiles of their times in seconds."""
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
        """`summary` for people."""
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
        """0: all completed; 3: none was answered; 1: else."""
        if self.answers and all(answer.outcome == COMPLETE for answer in self.answers):
            return exit_status.OK
        answered = any(answer.outcome in _STATUS for answer in self.answers)
        return exit_status.NO if answered else exit_status.NO_ANSWER


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


# -- on a terminal --------------------------------------------------------------------------------


@contextlib.contextmanager
def progress(count: int) -> Iterator[Callable[[], None]]:
    """A bar on standard error, if that is a terminal; call it for each answer."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    with click.progressbar(length=count, label="answers", file=sys.stderr, show_pos=True) as bar:
        yield lambda: bar.update(1)


@contextlib.asynccontextmanager
async def _shown(text: str, seconds: float) -> AsyncIterator[None]:
    """On a terminal, shows what is waited for and the seconds left, until the block ends."""
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
