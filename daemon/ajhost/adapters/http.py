"""An HTTP server for a few pages, in the loop of whoever starts it. The only importer of uvicorn.

uvicorn's own `serve` takes over signals and takes its time for a stop; so its parts are driven one by one here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ajhost.core.timings import HTTP_IDLE_LIMIT

if TYPE_CHECKING:
    from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, Scope

_MOST_CONNECTIONS = 32
"""More are closed at once: whoever opens connections must not use up the supervisor's descriptors."""
_BACKLOG = 64


class CannotListen(Exception):
    """The address cannot be listened on; the text has the address and the reason."""


@dataclass(frozen=True, slots=True)
class Page:
    """An answer: HTTP status, content type, body."""

    status: int
    kind: str
    body: bytes


Pages = Mapping[str, Callable[[], Page]]
"""Path -> what makes the page, called once for each request."""


class HttpServer:
    """Serves pages until it is closed."""

    def __init__(self, sockets: list[socket.socket], pages: Pages) -> None:
        self._sockets, self._pages = sockets, pages
        config = uvicorn.Config(
            self._answer,
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
        )
        config.load()
        self._server = uvicorn.Server(config)
        self._server.lifespan = config.lifespan_class(config)
        self._dates: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, listen: str, pages: Pages) -> Self:
        """Listens on `HOST:PORT`, on each address of a host name.

        :raises CannotListen: when one of them is in use, not ours, or not allowed.
        """
        sockets = await _bind(listen)
        try:
            server = cls(sockets, pages)
            await server._server.startup(sockets=sockets)
        except (AttributeError, TypeError) as error:  # its parts are not what they were up to version 0.54
            for sock in sockets:
                sock.close()
            raise CannotListen(f"{listen}: uvicorn {uvicorn.__version__} does not fit: {error}") from error
        server._dates = asyncio.create_task(server._server.main_loop())
        return server

    def close(self) -> None:
        """Ends it at once; connections that are open are closed, whatever they wait for."""
        if self._dates is not None:
            self._dates.cancel()
        for listener in self._server.servers:
            listener.close()
        for connection in list(self._server.server_state.connections):
            if isinstance(connection, _Bounded):
                connection.transport.close()

    async def _answer(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        del receive  # no page reads a body
        assert scope["type"] == "http"
        extra: list[tuple[bytes, bytes]] = []
        if (make := self._pages.get(scope["path"])) is None:
            page = Page(404, "text/plain; charset=utf-8", f"there is {', '.join(self._pages)}\n".encode())
        elif scope["method"] not in ("GET", "HEAD"):
            page = Page(405, "text/plain; charset=utf-8", b"only GET and HEAD\n")
            extra = [(b"allow", b"GET, HEAD")]
        else:
            page = make()
        headers = [
            (b"content-type", page.kind.encode()),
            (b"content-length", str(len(page.body)).encode()),
            (b"cache-control", b"no-store"),
            *extra,
        ]
        await send(
            {"type": "http.response.start", "status": page.status, "headers": headers, "trailers": False}
        )
        await send({"type": "http.response.body", "body": page.body, "more_body": False})


class _Bounded(H11Protocol):
    """Neither more connections than some, nor connections that never ask."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > _MOST_CONNECTIONS:
            transport.abort()
        else:
            self.timeout_keep_alive_task = self.loop.call_later(
                HTTP_IDLE_LIMIT, self.timeout_keep_alive_handler
            )


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
            # a name that cannot be resolved has a number of its own kind, and only a text
            reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
            raise CannotListen(f"{listen}: {reason}") from error
        opened.pop_all()
        return sockets
