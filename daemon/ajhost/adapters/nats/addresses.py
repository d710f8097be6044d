"""From the name of a server to an open socket: look-ups in own threads, and all addresses within one attempt.

Neither the loop's executor nor libuv's threads are used: handlers may have filled both with look-ups of their own. And
uvloop's `sock_connect` looks up even literal addresses in those threads, so sockets are opened by connect(2) itself.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import os
import resource
import socket
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from ajhost.core.connection_table import Lost
from ajhost.core.server_pool import Address, Server
from ajhost.core.timings import ADDRESS_STAGGER
from ajhost.ledger.connection_status import Reason

_NO_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL)
_T = TypeVar("_T")


class Unreachable(Exception):
    """No address of a server took the connection."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.event = Lost(reason, text)


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
        threading.Thread(target=run, name=f"ajhost {function.__name__}", daemon=True).start()
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


async def open_first(server: Server, addresses: Sequence[Address]) -> tuple[socket.socket, Address]:
    """A socket that is connected to the first address that answers; the next one is tried after `ADDRESS_STAGGER`.

    :raises Unreachable: when all have failed.
    """
    waiting = list(addresses)
    running: dict[asyncio.Task[socket.socket], Address] = {}
    failures: list[tuple[Address, OSError]] = []
    try:
        while waiting or running:
            if waiting:
                address = waiting.pop(0)
                running[asyncio.create_task(_connect(address))] = address
            done, _ = await asyncio.wait(
                running, timeout=ADDRESS_STAGGER if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                address = running.pop(task)
                error = task.exception()
                if error is None:
                    return task.result(), address
                if not isinstance(error, OSError):
                    raise error
                failures.append((address, error))
    finally:
        for task in running:
            _give_up(task)
    raise unreachable(server, failures)


def _give_up(task: asyncio.Task[socket.socket]) -> None:
    if task.cancel():
        return
    if not task.cancelled() and task.exception() is None:
        task.result().close()  # another address was first


async def _connect(address: Address) -> socket.socket:
    family = socket.AF_INET6 if address.is_v6 else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        place = (address.ip, address.port, 0, address.scope) if address.is_v6 else (address.ip, address.port)
        error = sock.connect_ex(place)
        if error == errno.EINPROGRESS:
            await _writable(sock)
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
    except BaseException:
        sock.close()
        raise
    return sock


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


async def _writable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_writer(sock, _set, ready)
    try:
        await ready
    finally:
        loop.remove_writer(sock)


def unreachable(server: Server, failures: Sequence[tuple[Address, OSError]]) -> Unreachable:
    """Why no address of a server took a connection: each with the error that it gave."""
    if not failures:
        return Unreachable(Reason.DNS, f"{server} has no address")
    numbers = {error.errno for _, error in failures}
    lacking = [error.errno for address, error in failures if _is_lack(address, error)]
    if lacking:
        return Unreachable(Reason.RESOURCES, no_resources(lacking[0] or 0))
    told = ", ".join(
        f"{address}: {(error.strerror or str(error)).lower()}" for address, error in failures[:3]
    )
    text = told if str(failures[0][0]) == str(server) else f"{server}: {told}"
    return Unreachable(Reason.REFUSED if errno.ECONNREFUSED in numbers else Reason.UNREACHABLE, text)


def _is_lack(address: Address, error: OSError) -> bool:
    # where IPv6 is switched off, each of its addresses is one that this machine has none to reach it from
    return error.errno in _NO_RESOURCES and not (error.errno == errno.EADDRNOTAVAIL and address.is_v6)


def no_resources(number: int) -> str:
    """The resource that this process or the machine lacks."""
    text = os.strerror(number).lower()
    if number == errno.EMFILE:
        limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return f"{text}: {limit} of {limit}"
    if number == errno.EADDRNOTAVAIL:
        return f"{text}: are all client ports in use (net.ipv4.ip_local_port_range)?"
    return text
