"""An HTTP server for a few pages, with limits of connections, time and viewers (503). Decides who may see a page: the
token (401), the Host header (421). `roles/supervisor/http_endpoints.py` has the pages. The only importer of uvicorn.

`uvicorn.Server.serve` installs signal handlers, and waits for open connections at a stop. The supervisor has handlers
of its own and must stop at once, so `startup` and `main_loop` are called here one by one.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hmac
import ipaddress
import os
import socket
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ajhost.core.timings import HTTP_HEAD_LIMIT, HTTP_IDLE_LIMIT

if TYPE_CHECKING:
    from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope
    from uvicorn.protocols.http.h11_impl import RequestResponseCycle


_MOST_CONNECTIONS = 32
"""Bounds the descriptors of the supervisor that clients use. At one more connection the server closes the oldest that
has no request in progress or does not read its answers, or the new one if there is none.
"""
_BACKLOG = 64
PLAIN_TEXT = "text/plain; charset=utf-8"
Headers = tuple[tuple[bytes, bytes], ...]
_OF_ALL: Headers = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
"""Headers of every answer: no browser takes it for another type, nor gives it to another site's page."""
_BODY = (b"content-length", b"transfer-encoding")
_CLOSE: Headers = ((b"connection", b"close"),)


class CannotListen(Exception):
    """The address cannot be listened on; the text has the address and the reason."""


@dataclass(frozen=True, slots=True)
class Page:
    """An answer: HTTP status, content type, body, and more headers."""

    status: int
    kind: str
    body: bytes
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer of server-sent events until the client disconnects; each chunk is sent as it is. A client beyond `most`
    at once is refused with the text `full`.
    """

    chunks: AsyncGenerator[bytes]
    most: int
    full: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """`answer` is called once for each request. `guarded`: whether it must pass `PageAccess`."""

    answer: Callable[[], Page | Stream]
    guarded: bool = False
    named: bool = True
    """Whether the answer to an unknown path (404) lists this one."""


Endpoints = Mapping[str, Endpoint]
"""Endpoints by path."""


@dataclass(frozen=True, slots=True)
class PageAccess:
    """Decides which requests may see guarded pages.

    `token`: required as `Authorization: Bearer TOKEN`, or as the password of Basic authentication with any user name.
    None: no token is required. `hosts`: names allowed in the Host header besides addresses and `localhost`. This stops
    DNS rebinding: a page of another site whose name is made to resolve to this host sends that name.
    """

    token: bytes | None = None
    hosts: frozenset[str] = frozenset()

    def refusal(self, headers: Mapping[bytes, bytes]) -> Page | None:
        """Returns the answer to a refused request (401, 421); None if it is allowed. Header names are lower case."""
        name = _host_name(headers.get(b"host", b"").decode("latin-1"))
        if not (name in ("", "localhost") or _is_address(name) or name in self.hosts):
            return Page(421, PLAIN_TEXT, b"this host is not called so; see [http] hosts\n")
        if self.token is None or hmac.compare_digest(_credential(headers.get(b"authorization", b"")), self.token):
            return None
        return Page(
            401, PLAIN_TEXT, b"the token of [http] token_file is needed\n",
            ((b"www-authenticate", b'Basic realm="ajhost, the token is the password"'),),
        )  # fmt: skip


class HttpServer:
    """Serves `endpoints` on listening sockets until `close`."""

    def __init__(self, endpoints: Endpoints, access: PageAccess) -> None:
        self._endpoints, self._access = endpoints, access
        self._streams = 0
        config = uvicorn.Config(
            self._serve,
            http=_Bounded,
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=int(HTTP_IDLE_LIMIT),
            backlog=_BACKLOG,  # asyncio accepts as many in one turn of the loop, before any is served
        )
        config.load()
        self._server = uvicorn.Server(config)
        self._server.lifespan = config.lifespan_class(config)
        self._dates: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, listen: str, endpoints: Endpoints, access: PageAccess) -> Self:
        """Listens on `HOST:PORT`, on each address of a host name.

        :raises CannotListen: an address is in use, not of this machine, or not permitted.
        """
        sockets = await _bind(listen)
        try:
            server = cls(endpoints, access)
            await server._server.startup(sockets=sockets)
        except (AttributeError, TypeError) as error:  # uvicorn's internals have changed since version 0.54
            for sock in sockets:
                sock.close()
            raise CannotListen(f"{listen}: uvicorn {uvicorn.__version__} does not fit: {error}") from error
        server._dates = asyncio.create_task(server._server.main_loop())
        return server

    def close(self) -> None:
        """Stops listening and closes all connections at once, those with a request in progress included."""
        if self._dates is not None:
            self._dates.cancel()
        for listener in self._server.servers:
            listener.close()
        for connection in list(self._server.server_state.connections):
            if isinstance(connection, _Bounded):
                connection.transport.close()

    async def _serve(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        assert scope["type"] == "http"
        answer = self._answer(scope)
        if isinstance(answer, Page):
            # a proxy in front may see another end of the body, and another request behind it (RFC 9112, section 11.2)
            has_body = any(name in _BODY for name, _ in scope["headers"])
            await _send_page(answer, send, _CLOSE if has_body else ())
            return
        self._streams += 1
        try:
            await _send_stream(answer, receive, send)
        finally:
            self._streams -= 1

    def _answer(self, scope: HTTPScope) -> Page | Stream:
        if (endpoint := self._endpoints.get(scope["path"])) is None:
            named = (path for path, endpoint in self._endpoints.items() if endpoint.named)
            return Page(404, PLAIN_TEXT, f"there is {', '.join(named)}\n".encode())
        if endpoint.guarded and (refusal := self._access.refusal(dict(scope["headers"]))) is not None:
            return refusal
        if scope["method"] not in ("GET", "HEAD"):
            return Page(405, PLAIN_TEXT, b"only GET and HEAD\n", ((b"allow", b"GET, HEAD"),))
        answer = endpoint.answer()
        if isinstance(answer, Stream) and scope["method"] == "HEAD":
            return Page(405, PLAIN_TEXT, b"only GET\n", ((b"allow", b"GET"),))
        if isinstance(answer, Stream) and self._streams >= answer.most:
            return Page(503, PLAIN_TEXT, f"{answer.full}\n".encode())
        return answer


def _host_name(header: str) -> str:
    name = header.strip().lower()
    if name.startswith("["):
        address, _, port = name[1:].partition("]")
        return name if port.strip(":0123456789") else address
    return name.partition(":")[0].rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _credential(header: bytes) -> bytes:
    """Returns the token in an Authorization header (RFC 6750, RFC 7617); empty when there is none."""
    scheme, _, value = header.strip().partition(b" ")
    if scheme.lower() == b"bearer":
        return value.strip()
    if scheme.lower() == b"basic":
        with contextlib.suppress(binascii.Error):
            return base64.b64decode(value.strip(), validate=True).partition(b":")[2]
    return b""


async def _send_page(page: Page, send: ASGISendCallable, more: Headers) -> None:
    length = (b"content-length", str(len(page.body)).encode())
    headers = [(b"content-type", page.kind.encode()), length, *_OF_ALL, *page.headers, *more]
    await send({"type": "http.response.start", "status": page.status, "headers": headers, "trailers": False})
    await send({"type": "http.response.body", "body": page.body, "more_body": False})


async def _send_stream(stream: Stream, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
    headers = [(b"content-type", b"text/event-stream"), *_OF_ALL]
    await send({"type": "http.response.start", "status": 200, "headers": headers, "trailers": False})

    async def send_chunks() -> None:
        async with contextlib.aclosing(stream.chunks) as chunks:
            async for chunk in chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def wait_for_end() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    sending, ending = asyncio.create_task(send_chunks()), asyncio.create_task(wait_for_end())
    try:
        await asyncio.wait({sending, ending}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        sending.cancel()
        ending.cancel()
        await asyncio.gather(sending, ending, return_exceptions=True)


class _Bounded(H11Protocol):
    """uvicorn's HTTP/1.1 protocol with limits: connections, idle time, and time until a request's head is complete."""

    def send_400_response(self, msg: str) -> None:
        """Refuses a malformed request. If its head was well-formed, uvicorn has begun to answer already."""
        if self.cycle is not None:
            if self.cycle.response_started:
                self.transport.close()
                return
            self.cycle.disconnected = True  # uvicorn drops the answer that it has begun
        super().send_400_response(msg)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._opened = self.loop.time()
        if len(self.connections) > _MOST_CONNECTIONS:
            self._make_room()
        self.timeout_keep_alive_task = self.loop.call_later(HTTP_IDLE_LIMIT, self.timeout_keep_alive_handler)

    @property
    def _asks(self) -> bool:
        """Whether a request of this connection is in progress."""
        # None before the first request, whatever uvicorn declares
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is not None and not cycle.response_complete

    def _make_room(self) -> None:
        ended = (c for c in self.connections if isinstance(c, _Bounded) and (not c._asks or c._unread))
        others = [c for c in ended if c is not self]
        oldest = min(others, key=lambda c: c._opened, default=self)
        # before `connection_lost` is called, so that the next call of this method does not choose it again
        self.connections.discard(oldest)
        oldest.transport.abort()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._asks or self.timeout_keep_alive_task is not None:
            self._disarm()
        elif self._head is None:
            self._head = self.loop.call_later(HTTP_HEAD_LIMIT, self.transport.abort)

    def pause_writing(self) -> None:
        """Called when the client does not read its answer: limits how long."""
        super().pause_writing()
        self._unread = self.loop.call_later(HTTP_IDLE_LIMIT, self.transport.abort)

    def resume_writing(self) -> None:
        """Called when the client has read: ends that limit."""
        super().resume_writing()
        self._forget_unread()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._forget_unread()
        super().connection_lost(exc)

    def _disarm(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _forget_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None


async def _bind(listen: str) -> list[socket.socket]:
    host, _, port = listen.rpartition(":")
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as opened:
        try:
            found = await loop.getaddrinfo(
                host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            sockets = []
            for family, kind, protocol, _, address in dict.fromkeys(found):
                sock = opened.enter_context(socket.socket(family, kind, protocol))
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind(address)
                sock.listen(_BACKLOG)
                sock.setblocking(False)
                sockets.append(sock)
        except OSError as error:
            # the errno of gaierror is an EAI_ number, of which os.strerror knows nothing
            reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
            raise CannotListen(f"{listen}: {reason}") from error
        except UnicodeError as error:  # of Python's IDNA codec
            raise CannotListen(f"{listen}: a part of the name is empty, or has more than 63 bytes") from error
        opened.pop_all()
        return sockets
