"""One queue of tokens that all processes of the host share; a route with its own limit has a queue of its own.
One that somebody has shut down is made anew.
"""

from __future__ import annotations

import logging
import os
import select
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from ajhost.settings.sections import HandlerSettings

_log = logging.getLogger("ajhost.supervisor")
DEFAULT = ""
"""The queue of every route without a limit of its own."""

_BUFFER = 8 << 20


@dataclass(slots=True)
class TokenQueue:
    """Two ends of a `SOCK_SEQPACKET` pair: a datagram is one token, and the kernel gives it to one receiver."""

    name: str
    receive: socket.socket
    send: socket.socket
    renewals: int = 0

    def is_shut(self) -> bool:
        """Whether any process has called shutdown(2), after which no token passes for any of them."""
        poll = select.poll()
        for end in (self.receive, self.send):
            poll.register(end, select.POLLRDHUP)
        return any(events & (select.POLLHUP | select.POLLRDHUP) for _, events in poll.poll(0))

    def renew(self) -> None:
        """Puts a new pair in the place of one that is shut, under the same descriptors."""
        _log.error("somebody has shut down the shared queue of this host: it is made anew, and so are workers")
        new = open_queue(self.name)
        for old, end in ((self.receive, new.receive), (self.send, new.send)):
            os.dup2(end.fileno(), old.fileno(), inheritable=False)
        new.close()
        self.renewals += 1

    def close(self) -> None:
        self.receive.close()
        self.send.close()


def queue_names(handlers: Sequence[HandlerSettings]) -> tuple[str, ...]:
    """Returns the names of the queues that the handlers need: the default one, and one for each route with a limit."""
    return (DEFAULT, *sorted({queue_of(h) for h in handlers} - {DEFAULT}))


def queue_of(handler: HandlerSettings) -> str:
    """Returns the name of a route's queue. That of a limited catch-all is `*`, which is no route."""
    limited = handler.concurrency is not None or handler.host_concurrency is not None
    return handler.route or "*" if limited else DEFAULT


def open_queue(name: str) -> TokenQueue:
    """Makes a queue. The kernel limits its tokens (net.core.wmem_max); more of them wait in the producers' outboxes."""
    receive, send = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (receive, send):
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
    return TokenQueue(name, receive, send)
