"""The two neighbours of a connection's transport: the sink of its requests, and the driver of its life."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Protocol

from ajhost.core.connection_table import Lost
from ajhost.ledger.connection_status import Reason
from ajhost.protocol.frames import Message
from ajhost.protocol.outcome import Failed, Outcome, Terminated
from ajhost.protocol.safe_text import printable
from ajhost.protocol.server_info import ServerInfo

_LONGEST_ERROR = 512
"""Characters of an error that are shown."""


Received = tuple[int, Message]
"""A request: its ledger entry, and where it lies in what was read."""


class InBuffer(Protocol):
    """A request whose frame lies in the receive buffer, and which has not begun."""

    def count_as_started(self) -> None:
        """The receive buffer is about to be overwritten: the frame must not be needed any more."""


class Sink:
    """Owns the ledger and decides about requests. What a class of it does not define, it does nothing about."""

    async def opened(self, sock: socket.socket) -> None:
        """There is a new connection, on which nothing was sent yet. Returns when another process has a duplicate of it.

        Without a duplicate, what the server sends on it would be lost when this process dies.
        """

    def set_max_payload(self, max_payload: int) -> None:
        """The server takes this many bytes of payload and headers together, whoever sends. Called first, and at each
        change."""

    def admit(self, data: bytes, requests: Sequence[Received]) -> None:
        """Requests that came together, in their order, RECEIVED in the ledger; `data` is what they were read from.

        Their frames lie in the receive buffer, which is overwritten next. Until then the transport's `in_buffer` may be
        given what has not begun.
        """

    def message_without_reply(self, data: bytes, message: Message) -> None:
        """A message without a reply subject came."""

    def before_send(self) -> None:
        """Replies to what was admitted are about to leave."""

    def reply_replaced(self, index: int, before: type[Outcome], outcome: Failed | Terminated) -> None:
        """A reply that told `before` did not leave, or was refused by the server: `outcome` is what became of it."""

    def refuse(self, reply: bytes) -> None:
        """A request had no free entry when its connection ended. Answer it as overloaded."""


class Driver:
    """Drives the life of the connection. The transport reports to it, and decides nothing.

    What a class of it does not define, it does nothing about.
    """

    def connection_ended(self, epoch: int, event: Lost) -> None:
        """The connection of that epoch is over."""

    def info_received(self, info: ServerInfo) -> None:
        """The server sent INFO again."""

    def error_received(self, text: str) -> None:
        """The server said `-ERR`."""


class ServerRefused(Exception):
    """The server said `-ERR` instead of letting us in; the text is the server's."""


ENDED = Lost(Reason.ENDED, "the server closed the connection")
TAKEN_OVER = Lost(Reason.ENDED, "taken over by the supervisor while this process hung")
SOCKET_LOST = Lost(Reason.SOCKET, "somebody in this process closed the connection's socket")


def broken(error: OSError) -> Lost:
    """The reason of a connection's end, by a failed system call."""
    return Lost(Reason.ENDED, f"connection lost: {(error.strerror or str(error)).lower()}")


def error_text(line: bytes) -> str:
    """The text of a server's `-ERR`, as a log or a terminal may show it."""
    text = line[4 : 4 + 4 * _LONGEST_ERROR].decode("utf-8", "replace").strip(" '\r\n")[:_LONGEST_ERROR]
    return printable(text) or "an error without a text"
