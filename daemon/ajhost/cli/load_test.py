"""`ajhost call --count`: sends many requests, at a rate or one after the other, and sums up their answers."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import click

from ajhost.cli import exit_status
from ajhost.cli.call_requests import COMPLETE, STATUS, Answer, Request, ask_over
from ajhost.settings.sections import NatsSettings


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
        answered = sorted(answer.seconds for answer in self.answers if answer.outcome in STATUS)
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
        answered = any(answer.outcome in STATUS for answer in self.answers)
        return exit_status.NO if answered else exit_status.NO_ANSWER


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


@contextlib.contextmanager
def progress(count: int) -> Iterator[Callable[[], None]]:
    """Shows a bar on standard error, if that is a terminal. Yields a function to call for each answer."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    with click.progressbar(length=count, label="answers", file=sys.stderr, show_pos=True) as bar:
        yield lambda: bar.update(1)
