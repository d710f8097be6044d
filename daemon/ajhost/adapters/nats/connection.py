"""NATS through nats-py, with the transport of ours underneath. The only importer of the client.

What nats-py does at its edges decides the shape of this module: a flush is no barrier, so leaving takes two; its
defaults give up after 60 reconnects, so ours never do; most `-ERR` lines close it for good, so it does not see them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import nats
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from ajhost.adapters.nats.transport import LedgerTransport
from ajhost.settings.values import NatsSettings, TlsSettings

_log = logging.getLogger("ajhost.nats")
_RECONNECT_WAIT = 0.1
_CONNECT_TIMEOUT = 5
_REPEAT_SECONDS = 30.0
"""The same trouble is logged again only after so long."""


class ConnectFailed(Exception):
    """No server could be reached, or it did not accept us; the text names the address and the reason."""


class NoResponders(Exception):
    """The server knows nobody who serves the subject."""


class Reply(NamedTuple):
    """A reply as it came."""

    headers: Mapping[str, str]
    body: bytes


def addresses(settings: NatsSettings) -> str:
    """The configured servers as text without user names and passwords."""
    return ", ".join(
        s.rpartition("@")[2] if "@" in s else s.partition("://")[2] or s for s in settings.servers
    )


def tls_context(tls: TlsSettings | None) -> ssl.SSLContext:
    """The client's TLS context.

    :raises OSError: when a file cannot be read or is no certificate (`ssl.SSLError`).
    """
    context = ssl.create_default_context(cafile=None if tls is None else tls.ca)
    if tls is not None and tls.cert is not None:
        context.load_cert_chain(tls.cert, tls.key)
    return context


class ThrottledLog:
    """Logs what is wrong with the servers, each trouble once in a while: waiting for one must not flood the log."""

    def __init__(self, settings: NatsSettings) -> None:
        self._where = addresses(settings)
        self._told: dict[str, float] = {}

    def __bool__(self) -> bool:
        return bool(self._told)

    def tell(self, error: Exception) -> None:
        """Logs an error unless it was logged a short while ago."""
        text, now = str(error) or type(error).__name__, time.monotonic()
        if now - self._told.get(text, -_REPEAT_SECONDS) < _REPEAT_SECONDS:
            return
        if len(self._told) > 100:
            self._told.clear()
        self._told[text] = now
        _log.warning("waiting for NATS at %s: %s", self._where, text)

    def clear(self) -> None:
        """All is well again."""
        self._told.clear()


class _Client(Client):
    """nats-py's client, but its reader outlives a PONG for which nobody waits any more.

    A flush that is given up, as the server stands still for longer than its limit, leaves its future behind. The PONG
    that comes after all finds it done, and nats-py 2.16 (client.py, `_process_pong`) then ends its read loop for good:
    nothing is confirmed, no PING of the server's answered, until minutes later the connection counts as stale.
    """

    async def _process_pong(self) -> None:
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()


class Connection:
    """A connection that comes back for ever. `up` is set while the server has all our subscriptions."""

    def __init__(self, settings: NatsSettings, transport: LedgerTransport, name: str) -> None:
        self._settings = settings
        self._name = name
        self._client = _Client()
        # a private name: nats-py takes a custom transport, but has no parameter for it (nats-py 2.16, client.py)
        self._client._transport = transport
        self._transport = transport
        self._subscriptions: list[Subscription] = []
        self._troubles = ThrottledLog(settings)
        self.up, self._down = asyncio.Event(), asyncio.Event()
        self.lost = False

    @property
    def max_payload(self) -> int:
        """The server's limit for payload and headers together, in bytes."""
        return self._client.max_payload

    async def connect(self) -> None:
        """Connects, however long it takes; says where it waits, once in a while."""
        while True:
            try:
                await self._client.connect(**_options(self._settings), **self._callbacks())
            except (OSError, nats.errors.Error, TimeoutError) as error:
                await self._on_error(error)
                await asyncio.sleep(_RECONNECT_WAIT)
            else:
                break
        if self.lost or self._troubles:
            _log.info("connected to NATS at %s", self._server())
        self.lost = False
        self._have()

    def _callbacks(self) -> dict[str, Any]:
        return {
            "name": self._name,
            "error_cb": self._on_error,
            "disconnected_cb": self._on_disconnect,
            "reconnected_cb": self._on_reconnect,
            "closed_cb": self._on_closed,
        }

    def _server(self) -> str:
        url = self._client.connected_url
        return "?" if url is None else url.netloc.rpartition("@")[2]

    async def _on_error(self, error: Exception) -> None:
        self._troubles.tell(error)

    async def _on_disconnect(self) -> None:
        self._lose()
        self.lost = True

    async def _on_reconnect(self) -> None:
        _log.info("connected again to NATS at %s", self._server())
        self._troubles.clear()
        self.lost = False
        self._have()

    async def _on_closed(self) -> None:
        self._lose()

    def _lose(self) -> None:
        self.up.clear()
        self._down.set()

    def _have(self) -> None:
        self._down.clear()
        self.up.set()

    async def subscribe(self, subjects: Iterable[str], group: str) -> None:
        """Joins the queue group on every subject and waits until the server knows."""
        for subject in subjects:
            self._subscriptions.append(await self._client.subscribe(subject, queue=group, cb=_never))
        await self._barrier()

    async def leave(self) -> None:
        """Leaves every subject; when it returns, all that the server had sent us is in the ledger.

        Without a connection, nothing is left to come: a reconnect subscribes to nothing, for nats-py has forgotten all.
        """
        connected = self.up.is_set()
        for subscription in self._subscriptions:
            with contextlib.suppress(nats.errors.Error, ValueError):
                await subscription.unsubscribe()
        self._subscriptions.clear()
        if connected:
            await self._barrier()

    async def _barrier(self) -> None:
        # a PING is written ahead of pending SUB and UNSUB lines, so the first flush only makes sure that they are out
        while True:
            try:
                await self._client.flush(_CONNECT_TIMEOUT)
                await self._client.flush(_CONNECT_TIMEOUT)
            except (nats.errors.Error, TimeoutError, OSError):
                if self._client.is_closed:
                    return
                await asyncio.sleep(_RECONNECT_WAIT)
            else:
                return

    async def answers(self, patience: float) -> bool:
        """Whether the server answers within `patience` seconds, on the connection that is there now."""
        if not self.up.is_set():
            return False
        asked = asyncio.create_task(self._client.flush(_CONNECT_TIMEOUT))
        lost = asyncio.create_task(self._down.wait())
        try:
            await asyncio.wait({asked, lost}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            # without a connection a flush goes nowhere and is content (nats-py 2.16, client.py, `flush`)
            still = self._client.is_connected and not lost.done()
            return still and asked.done() and asked.exception() is None
        finally:
            asked.cancel()
            lost.cancel()

    async def close(self) -> None:
        """Closes the connection after what is queued was written."""
        await self._client.close()


async def _never(message: Msg) -> None:
    raise AssertionError(f"{message.subject}: requests do not pass through the client")


def _options(settings: NatsSettings) -> dict[str, Any]:
    options: dict[str, Any] = {
        "servers": list(settings.servers),
        "allow_reconnect": True,
        "max_reconnect_attempts": -1,
        "reconnect_time_wait": _RECONNECT_WAIT,
        "connect_timeout": _CONNECT_TIMEOUT,
        "pending_size": 64 << 20,
        "inbox_prefix": settings.inbox_prefix,
    }
    given = {
        "user": settings.user,
        "password": settings.password,
        "token": settings.token,
        "user_credentials": None if settings.creds is None else str(settings.creds),
        "nkeys_seed": None if settings.nkey is None else str(settings.nkey),
    }
    options.update({key: value for key, value in given.items() if value is not None})
    if settings.tls is not None or any(s.startswith("tls://") for s in settings.servers):
        options["tls"] = tls_context(settings.tls)
        options["tls_handshake_first"] = settings.tls is not None and settings.tls.first
    return options


async def discover(settings: NatsSettings) -> int:
    """The server's `max_payload` in bytes. Waits for a server for ever, and says so once in a while."""
    troubles = ThrottledLog(settings)

    async def tell(error: Exception) -> None:
        troubles.tell(error)

    while True:
        try:
            client = await nats.connect(**_options(settings) | {"error_cb": tell, "name": "ajhost start"})
        except (OSError, nats.errors.Error, TimeoutError) as error:
            troubles.tell(error)
            await asyncio.sleep(_RECONNECT_WAIT)
        else:
            size = client.max_payload
            await client.close()
            return size


async def request_once(
    settings: NatsSettings, subject: str, headers: dict[str, str], body: bytes, timeout: float
) -> Reply:
    """Connects, sends one request, waits for its reply.

    :raises ConnectFailed: no server. :raises NoResponders: nobody serves the subject. :raises TimeoutError: no answer
    within `timeout` seconds.
    """

    last: list[Exception] = []

    async def remember(error: Exception) -> None:
        last[:] = [error]

    # one more try than none: nats-py takes 0 for "for ever"
    once = {"allow_reconnect": False, "max_reconnect_attempts": 1, "error_cb": remember, "connect_timeout": 2}
    try:
        client = await nats.connect(**_options(settings) | once)
    except (OSError, nats.errors.Error, TimeoutError) as error:
        reason = last[0] if last else error
        raise ConnectFailed(
            f"NATS at {addresses(settings)}: {str(reason) or type(reason).__name__}"
        ) from error
    try:
        message = await client.request(subject, body, timeout, headers=headers)
    except nats.errors.NoRespondersError as error:
        raise NoResponders(subject) from error
    except nats.errors.TimeoutError as error:
        raise TimeoutError(subject) from error
    else:
        return Reply(message.headers or {}, message.data)
    finally:
        await client.close()
