"""Looks up the names of servers, in threads of their own.

Neither the loop's executor nor libuv's threads are used: handlers may have filled both with look-ups of their own.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import socket
from collections.abc import Callable
from typing import TypeVar

from ajhost.adapters.daemon_thread import start_daemon_thread
from ajhost.core.server_pool import Address, Server

_T = TypeVar("_T")


def in_thread(function: Callable[..., _T], *args: object) -> asyncio.Future[_T]:
    """Calls a function that may block in a daemon thread of its own, which ends with it.

    :raises OSError: when no thread can be started.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_T] = loop.create_future()

    def settle(result: _T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, error = None, None
        try:
            result = function(*args)
        except BaseException as raised:
            error = raised
        try:
            loop.call_soon_threadsafe(settle, result, error)
        except RuntimeError:
            return  # the loop is closed

    try:
        start_daemon_thread(run, f"ajhost {function.__name__}")
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, "no thread can be started") from error
    return future


class Resolver:
    """Looks names up, each name once at a time: a second caller waits for the same answer."""

    def __init__(self) -> None:
        self._running: dict[str, asyncio.Future[list[tuple[str, int]]]] = {}

    async def resolve(self, server: Server) -> tuple[Address, ...]:
        """All addresses of a server's name.

        :raises OSError: when there are none, or no resolver answers.
        """
        running = self._running.get(server.host)
        if running is None:
            running = self._running[server.host] = in_thread(look_up, server.host)
            running.add_done_callback(functools.partial(self._forget, server.host))
        found = await asyncio.shield(running)
        return tuple(Address(ip, server.port, scope) for ip, scope in found)

    def _forget(self, host: str, running: asyncio.Future[list[tuple[str, int]]]) -> None:
        del self._running[host]
        if not running.cancelled():
            running.exception()  # the caller may have been cancelled


def look_up(host: str) -> list[tuple[str, int]]:
    """getaddrinfo(3) for TCP: literal addresses with their scopes.

    :raises OSError: when there are none.
    """
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except UnicodeError:  # Python encodes names by IDNA first: an empty label, or one of more than 63 bytes
        raise OSError(socket.EAI_NONAME, "no name that can be looked up") from None
    return [
        (str(address[0]).partition("%")[0], int(address[3]) if len(address) > 3 else 0)
        for *_, address in found
    ]
