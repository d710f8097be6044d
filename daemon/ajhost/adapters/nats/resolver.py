"""Looks up the names of servers, in threads of their own. If that fails, `core/connection_machine.py` uses the
addresses of before.

Neither the loop's executor nor libuv's threads are used: handlers may have filled both with look-ups of their own.
"""

from __future__ import annotations

import asyncio
import functools
import socket

from ajhost.adapters.threads import call_in_thread
from ajhost.core.server_pool import Address, Server


class Resolver:
    """Looks names up, each name once at a time: a second caller waits for the same answer."""

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Future[list[tuple[str, int]]]] = {}

    async def resolve(self, server: Server) -> tuple[Address, ...]:
        """Returns all addresses of a server's name.

        :raises OSError: when there are none, or no resolver answers.
        """
        running = self._running.get(server.host)
        if running is None:
            running = self._running[server.host] = call_in_thread(look_up, server.host)
            running.add_done_callback(functools.partial(self._forget, server.host))
        found = await asyncio.shield(running)
        return tuple(Address(ip, server.port, scope) for ip, scope in found)

    def _forget(self, host: str, running: asyncio.Future[list[tuple[str, int]]]) -> None:
        del self._running[host]
        if not running.cancelled():
            running.exception()  # the caller may have been cancelled


def look_up(host: str) -> list[tuple[str, int]]:
    """Calls getaddrinfo(3) for TCP. Returns literal addresses with their scopes.

    :raises OSError: when there are none.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except UnicodeError:  # Python encodes names by IDNA first: an empty label, or one of more than 63 bytes
        raise OSError(socket.EAI_NONAME, "no name that can be looked up") from None
    return [(str(address[0]).partition("%")[0], int(address[3]) if len(address) > 3 else 0) for *_, address in found]
