"""Who stands around a connection's transport: the owner of its requests, and the driver of its life."""

from __future__ import annotations

import socket
from typing import Protocol

from ajhost.core.connection_table import Lost
from ajhost.ledger.connection_status import Reason
from ajhost.protocol.frames import Message
from ajhost.protocol.server_info import ServerInfo


class Sink(Protocol):
    """Who owns the ledger and decides about requests."""

    async def opened(self, sock: socket.socket) -> None:
        """A new connection, before anything was sent on it. Pass a duplicate of it on, return when it is in good hands.

        What the server hands to a connection of which nobody else has a duplicate dies with this process.
        """

    def limited(self, max_payload: int) -> None:
        """The server takes so many bytes of payload and headers together. Told first, and at each change."""

    def admit(self, index: int, data: bytes, message: Message) -> None:
        """A request, RECEIVED in the ledger. Called for a whole batch, in order. Its frame stays until
        `before_buffer_reuse`."""

    def unasked(self, data: bytes, message: Message) -> None:
        """A message to which nobody awaits an answer."""

    def before_buffer_reuse(self) -> None:
        """The chunk is about to be overwritten: nobody may need any more what has been admitted from there."""

    def refuse(self, reply: bytes) -> None:
        """A request for which no entry was free when its connection ended. Answer it as overloaded."""


class Driver(Protocol):
    """Who drives the connection. The transport tells it what it sees, and decides nothing."""

    def ended(self, epoch: int, event: Lost) -> None:
        """The connection of that epoch is over."""

    def told(self, info: ServerInfo) -> None:
        """The server sent INFO again."""

    def server_error(self, text: str) -> None:
        """The server said `-ERR`."""


class ServerRefused(Exception):
    """The server said `-ERR` instead of letting us in; the text is the server's."""


ENDED = Lost(Reason.ENDED, "the server closed the connection")
TAKEN_OVER = Lost(Reason.ENDED, "taken over by the supervisor while this process hung")


def broken(error: OSError) -> Lost:
    """What a failed system call says of the connection."""
    return Lost(Reason.ENDED, f"connection lost: {(error.strerror or str(error)).lower()}")


def error_text(line: bytes) -> str:
    """The text of a server's `-ERR`."""
    return line[4:].decode("utf-8", "replace").strip(" '\r\n")
