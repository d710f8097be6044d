"""Tries at a server, for `ajhost check --connect`, to log in, subscribe and answer, and finds other queue groups."""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ajhost.adapters.nats.connect_and_log_in import ConnectAttempts, private_ledger
from ajhost.adapters.nats.credentials import servers_of
from ajhost.adapters.nats.interfaces import Driver, Sink
from ajhost.adapters.nats.transport import LedgerTransport
from ajhost.core.connection_table import Lost
from ajhost.core.server_errors import violation_of
from ajhost.core.server_pool import Server
from ajhost.core.server_restart import RestartWindow
from ajhost.core.timings import EXPIRY_WARNING, SERVICES_ASKED, TRIAL_LIMIT
from ajhost.protocol.frames import Message
from ajhost.protocol.service_api import ServiceInfo, Verb, covers, read_info
from ajhost.settings.sections import NatsSettings

_INBOXES = "_INBOX"
"""The prefix of routers' reply subjects, by default (nats.go)."""


@dataclass(frozen=True, slots=True)
class Findings:
    """A line for each problem, and for each that is to come or could not be checked."""

    problems: tuple[str, ...]
    warnings: tuple[str, ...]


async def try_servers(settings: NatsSettings, subjects: Sequence[str], runtime: Path) -> Findings:
    """Tries every configured server. `runtime`, with the machine's name, tells this host from others.

    The subscriptions are in a queue group of its own and end at once, so no request is taken from another host. The
    message that is published goes to an inbox that does not exist.
    """
    problems: list[str] = []
    warnings: list[str] = []
    for server in servers_of(settings):
        trial = _Trial(settings, runtime)
        try:
            async with asyncio.timeout(TRIAL_LIMIT):
                found = await trial.run(server, subjects)
        except TimeoutError:
            found = [f"no answer within {TRIAL_LIMIT:.0f} s"]
        problems += [f"NATS at {server}: {text.removeprefix(f'{server}: ')}" for text in found]
        warnings += [f"NATS at {server}: {text}" for text in trial.expiring]
        # servers of one cluster report the same services
        problems += [text for text in trial.doubled if text not in problems]
        warnings += [text for text in trial.not_seen if not found and text not in warnings]
    return Findings(tuple(problems), tuple(warnings))


class _Services(Sink):
    def __init__(self) -> None:
        self.told: list[ServiceInfo] = []

    def message_without_reply(self, data: bytes, message: Message) -> None:
        """`Sink`: collects an answer. Only services know the inbox."""
        _, _, body, end, _, _ = message
        if (info := read_info(data[body : end - 2])) is not None:
            self.told.append(info)


class _Trial(Driver):
    """One connection; it is its own driver."""

    def __init__(self, settings: NatsSettings, runtime: Path) -> None:
        ledger = private_ledger()
        self._settings, self._runtime, self._services = settings, runtime, _Services()
        self.doubled: list[str] = []
        """A line for each host that gets each task as well, since it is in another queue group."""
        self.not_seen: list[str] = []
        self.expiring: list[str] = []
        self._transport = LedgerTransport(ledger, RestartWindow(ledger), self._services, self)
        self._attempts = ConnectAttempts(settings, "ajhost check", self._transport)
        prefixes = settings.reply_prefixes or (_INBOXES,)
        self._inboxes = [prefix.rstrip(".>") for prefix in prefixes]
        self._errors: list[str] = []
        self._lost: Lost | None = None

    def connection_ended(self, epoch: int, event: Lost) -> None:
        self._lost = event

    def error_received(self, text: str) -> None:
        self._errors.append(text)

    async def run(self, server: Server, subjects: Sequence[str]) -> list[str]:
        """Returns a line for each problem."""
        try:
            if (failed := await self._attempts.connect(server)) is not None:
                return [failed.text]
            self._look_at_expiries()
            problems = await self._permissions(subjects)
            if self._lost is None:
                await self._compare_groups(subjects)
            return problems
        finally:
            self._transport.close()

    def _look_at_expiries(self) -> None:
        tls = self._transport.out.tls
        until = {
            "the server's certificate": None if tls is None else tls.certificate_expires,
            "the user's JWT": self._attempts.jwt_expires,
        }
        for what, at in until.items():
            if at is not None and at - time.time() < EXPIRY_WARNING:
                moment = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))
                self.expiring.append(f"{what} expires at {moment}: no connection is made from then on")

    async def _permissions(self, subjects: Sequence[str]) -> list[str]:
        token = secrets.token_hex(8)
        lines = [
            b"SUB %b ajhost-check-%b %d\r\n" % (subject.encode(), token.encode(), number)
            for number, subject in enumerate(subjects, start=1)
        ]
        # all at once, as a worker has them: the server may limit their number
        lines += [b"UNSUB %d\r\n" % number for number in range(1, len(subjects) + 1)]
        lines += [b"PUB %b.%b 0\r\n\r\n" % (prefix.encode(), token.encode()) for prefix in self._inboxes]
        self._transport.out.command(b"".join(lines))
        answered = await self._transport.out.round_trip()
        problems = []
        for text in dict.fromkeys(self._errors):
            violation = violation_of(text)
            if violation is None:
                problems.append(text)
                continue
            of_group = f"{violation.subject} {self._settings.queue_group}"
            enough = f' ("{of_group}" is enough, but not seen by this trial in a group of its own)'
            by_group = violation.operation == "subscribe" and violation.subject
            problems.append(f"{text}: {violation.grant()}{enough if by_group else ''}")
        if not answered and not problems:
            problems.append("the connection ended" if self._lost is None else self._lost.text)
        return problems

    async def _compare_groups(self, subjects: Sequence[str]) -> None:
        """Asks all services, hosts among them, what they are subscribed to, and in which queue group."""
        self._errors.clear()
        prefix, question = self._settings.inbox_prefix, f"$SRV.{Verb.INFO.value}"
        inbox = f"{prefix}.{secrets.token_hex(8)}"
        number = len(subjects) + 1
        self._transport.out.command(f"SUB {inbox} {number}\r\nPUB {question} {inbox} 0\r\n\r\n".encode())
        if not await self._transport.out.round_trip():
            return
        if self._errors:
            self.not_seen.append(
                f"nats.queue_group: whether other hosts have the same one was not looked at: {self._errors[0]} (it "
                f'takes the permissions to publish to "{question}" and to subscribe to "{prefix}.>")'
            )
            return
        await asyncio.sleep(SERVICES_ASKED)
        us = {"host": socket.gethostname(), "runtime": str(self._runtime)}
        others = [told for told in self._services.told if not us.items() <= told.metadata.items()]
        self.doubled += _doubled(others, subjects, self._settings.queue_group)


def _doubled(others: Iterable[ServiceInfo], subjects: Sequence[str], group: str) -> list[str]:
    """Returns a line for each of `others` that gets tasks on our `subjects` although `group` gets them as well."""
    lines = []
    for other in others:
        shared: dict[str, list[str]] = {}
        for subject in subjects:
            for pattern, theirs in other.subscribed:
                if theirs != group and covers(pattern, subject):
                    shared.setdefault(theirs, []).append(subject)
        runtime = other.metadata.get("runtime", f"service {other.id}")
        who = f"{other.metadata.get('host', other.name)} ({runtime})"
        for theirs, both in shared.items():
            place = f'in queue group "{theirs}"' if theirs else "without a queue group"
            more = f" and {len(both) - 1} more" if len(both) > 1 else ""
            lines.append(
                f'nats.queue_group: {who} has "{both[0]}"{more} {place}, these settings have "{group}": '
                "each task runs on both; one group for all hosts is right"
            )
    return lines
