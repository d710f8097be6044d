"""Handles the operation lines of a server: INFO, PING, PONG, -ERR."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ajhost.adapters.nats.interfaces import Driver, error_text
from ajhost.adapters.nats.reply_writer import ReplyWriter
from ajhost.protocol.frames import FrameError
from ajhost.protocol.server_info import ServerInfo, read_info


def obey(lines: Iterable[bytes], out: ReplyWriter, driver: Driver) -> Iterator[ServerInfo]:
    """Handles operation lines. Returns what an INFO among them says.

    :raises InfoError: for INFO that is none. :raises FrameError: for an operation that no server sends to a client.
    """
    for line in lines:
        match line[:4].upper():
            case b"PONG":
                out.pong()
            case b"PING":
                out.answer_ping()
            case b"INFO":
                yield read_info(line)
            case b"-ERR":
                # if the server then closes the connection, a new one is made
                driver.server_error(error_text(line))
            case b"+OK\r":
                pass
            case _:
                raise FrameError(f"{line[:40]!r}, which is no operation of a server")
