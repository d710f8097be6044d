"""One queue of tokens that all processes of the host share; a route with its own limit has a lane of its own."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass

from ajhost.settings.values import HandlerSettings

GENERAL = ""
"""The lane of every route without a `concurrency` of its own."""

_BUFFER = 8 << 20


@dataclass(frozen=True, slots=True)
class Lane:
    """Two ends of a `SOCK_SEQPACKET` pair: a datagram is one token, and the kernel gives it to one receiver."""

    name: str
    receive: socket.socket
    send: socket.socket

    def close(self) -> None:
        """Closes this process's descriptors."""
        self.receive.close()
        self.send.close()


def lane_names(handlers: Sequence[HandlerSettings]) -> tuple[str, ...]:
    """Which lanes the handlers need: the general one, and one for each route with a limit.

    A limited catch-all is called `*`, which is no route.
    """
    return (GENERAL, *sorted(lane_of(h) for h in handlers if h.concurrency is not None))


def lane_of(handler: HandlerSettings) -> str:
    """The lane in which a handler's requests wait."""
    return GENERAL if handler.concurrency is None else handler.route or "*"


def open_lane(name: str) -> Lane:
    """A new lane. The kernel's default holds about 270 tokens, more where the limits allow; the rest waits outside."""
    receive, send = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (receive, send):
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
    return Lane(name, receive, send)
