"""What a connection's transport calls: `Sink` with its requests, `Driver` with the events of its life."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Protocol

from ajhost.core.connection_table import Lost
from ajhost.ledger.connection_status import Reason
from ajhost.protocol.frames import Message
from ajhost.protocol.outcome import Failed, Outcome, Terminated
from ajhost.protocol.server_info import ServerInfo

Received = tuple[int, Message]
"""A request: its ledger entry, and its positions in the bytes that were read."""


class InBuffer(Protocol):
    """A request that has not started, and whose frame is in the receive buffer."""

    def count_as_started(self) -> None:
        """Called before the receive buffer is overwritten: the request must not need its frame any more."""


class Sink:
    """Owns the ledger and decides about requests. Each method does nothing by default."""

    async def opened(self, sock: socket.socket) -> None:
        """Shares a connection before anything is sent on it. Returns when another process has a duplicate of it.

        Without a duplicate, the death of this process would lose requests that the server has sent on it.
        """

    def set_max_payload(self, max_payload: int) -> None:
        """Sets the server's limit of payload and headers together, in bytes, for any sender. Called first, and at each
        change.
        """

    def admit(self, data: bytes, requests: Sequence[Received]) -> None:
        """Admits the requests of one read in their order, all RECEIVED in the ledger. `data`: the bytes of that read.

        Their frames lie in the receive buffer, which a later read overwrites. Before it does, the transport counts the
        requests in its `in_buffer` as started: the sink adds those that have not started.
        """

    def message_without_reply(self, data: bytes, message: Message) -> None:
        """Handles a message that has no reply subject."""

    def before_send(self) -> None:
        """Called before replies to admitted requests are written."""

    def reply_replaced(self, index: int, before: type[Outcome], outcome: Failed | Terminated) -> None:
        """Called for a reply of outcome `before` that is too large, or was refused by the server; `outcome` is new."""

    def refuse(self, reply: bytes) -> None:
        """Answers a request as overloaded: it had no free entry when its connection ended."""


class Driver:
    """Drives the life of the connection. The transport reports to it, and decides nothing.

    Each method does nothing by default.
    """

    def connection_ended(self, epoch: int, event: Lost) -> None:
        """Called when the connection of that epoch is over."""

    def info_received(self, info: ServerInfo) -> None:
        """Called for each INFO of the server except the first."""

    def error_received(self, text: str) -> None:
        """Called for each `-ERR` of the server after the log-in."""


class ServerRefused(Exception):
    """The server sent `-ERR` in place of its first INFO; the text is the server's."""


TAKEN_OVER = Lost(Reason.ENDED, "taken over by the supervisor while this process hung")


def broken(error: OSError) -> Lost:
    """Returns the event for a connection that a failed system call has ended."""
    return Lost(Reason.ENDED, f"connection lost: {(error.strerror or str(error)).lower()}")
