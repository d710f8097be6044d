"""Tries whether a server lets a host log in, subscribe and publish answers, for `ajhost check --connect`."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence

from ajhost.adapters.nats.connect_attempts import ConnectAttempts
from ajhost.adapters.nats.credentials import servers_of
from ajhost.adapters.nats.interfaces import Driver
from ajhost.adapters.nats.scout import NoRequests, private_ledger
from ajhost.adapters.nats.transport import LedgerTransport
from ajhost.core.connection_table import ConnectionFailed, Lost, Resolved, Sealed
from ajhost.core.restart_window import RestartWindow
from ajhost.core.server_errors import violation_of
from ajhost.core.server_pool import Server
from ajhost.core.timings import TRIAL_LIMIT
from ajhost.settings.values import NatsSettings

_INBOXES = "_INBOX"
"""The prefix of routers' reply subjects, by default (nats.go)."""


async def try_servers(settings: NatsSettings, subjects: Sequence[str]) -> list[str]:
    """Tries every configured server. Returns a line for each problem.

    The subscriptions are in a queue group of its own and end at once, so no request is taken from another host. The
    message that is published goes to an inbox that does not exist.
    """
    problems = []
    for server in servers_of(settings):
        try:
            async with asyncio.timeout(TRIAL_LIMIT):
                found = await _Trial(settings).run(server, subjects)
        except TimeoutError:
            found = [f"no answer within {TRIAL_LIMIT:.0f} s"]
        problems += [f"NATS at {server}: {text.removeprefix(f'{server}: ')}" for text in found]
    return problems


class _Trial(Driver):
    """One connection; it is its own driver."""

    def __init__(self, settings: NatsSettings) -> None:
        ledger = private_ledger()
        self._transport = LedgerTransport(ledger, RestartWindow(ledger), NoRequests(), self)
        self._attempts = ConnectAttempts(settings, "ajhost check")
        prefixes = settings.reply_prefixes or (_INBOXES,)
        self._inboxes = [prefix.rstrip(".>") for prefix in prefixes]
        self._errors: list[str] = []
        self._lost: Lost | None = None

    def ended(self, epoch: int, event: Lost) -> None:
        """`Driver`: the connection is over."""
        self._lost = event

    def server_error(self, text: str) -> None:
        """`Driver`: `-ERR`."""
        self._errors.append(text)

    async def run(self, server: Server, subjects: Sequence[str]) -> list[str]:
        """What is wrong."""
        try:
            if (failed := await self._log_in(server)) is not None:
                return [failed]
            return await self._permissions(subjects)
        finally:
            self._transport.close()

    async def _log_in(self, server: Server) -> str | None:
        found = await self._attempts.resolve(server)
        if not isinstance(found, Resolved):
            return found.text
        opened = await self._attempts.open(self._transport, server, found.addresses)
        failed = (
            await self._attempts.log_in(self._transport, server) if isinstance(opened, Sealed) else opened
        )
        return failed.text if isinstance(failed, ConnectionFailed) else None

    async def _permissions(self, subjects: Sequence[str]) -> list[str]:
        token = secrets.token_hex(8)
        lines = [
            b"SUB %b ajhost-check-%b %d\r\n" % (subject.encode(), token.encode(), number)
            for number, subject in enumerate(subjects, start=1)
        ]
        # all at once, as a worker has them: their number may be limited
        lines += [b"UNSUB %d\r\n" % number for number in range(1, len(subjects) + 1)]
        lines += [b"PUB %b.%b 0\r\n\r\n" % (prefix.encode(), token.encode()) for prefix in self._inboxes]
        self._transport.out.command(b"".join(lines))
        answered = await self._transport.out.round_trip()
        problems = []
        for text in dict.fromkeys(self._errors):
            violation = violation_of(text)
            problems.append(text if violation is None else f"{text}: {violation.grant()}")
        if not answered and not problems:
            problems.append("the connection ended" if self._lost is None else self._lost.text)
        return problems
