"""Opens a connection to the first of a server's addresses that answers, all within one attempt, the next one 0.25 s
after one that has not answered (RFC 8305). Says why none has answered.

uvloop's `sock_connect` looks up even literal addresses in libuv's threads, which handlers may have filled, so sockets
are opened by connect(2) itself.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Sequence

from ajhost.adapters.linux import os_error_texts
from ajhost.adapters.linux.descriptors import socket_moved_far
from ajhost.core.connection_table import Lost
from ajhost.core.server_pool import Address, Server
from ajhost.core.timings import ADDRESS_STAGGER
from ajhost.ledger.connection_status import Reason

_NO_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL)


class Unreachable(Exception):
    """No address of a server took the connection."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.event = Lost(reason, text)


async def open_first(server: Server, addresses: Sequence[Address]) -> tuple[socket.socket, Address]:
    """Returns a socket to the first address that answers. Tries the next after a failure or `ADDRESS_STAGGER` s.

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
    sock = socket_moved_far(socket.socket(family, socket.SOCK_STREAM))
    try:
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


async def _writable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_writer(sock, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_writer(sock)


def unreachable(server: Server, failures: Sequence[tuple[Address, OSError]]) -> Unreachable:
    """Makes the error for a server of which no address took a connection, with the errors of the first three."""
    if not failures:
        return Unreachable(Reason.DNS, f"{server} has no address")
    numbers = {error.errno for _, error in failures}
    lacking = [error.errno for address, error in failures if _is_lack(address, error)]
    if lacking:
        return Unreachable(Reason.RESOURCES, os_error_texts.no_connection(lacking[0] or 0))
    told = ", ".join(f"{address}: {(error.strerror or str(error)).lower()}" for address, error in failures[:3])
    text = told if str(failures[0][0]) == str(server) else f"{server}: {told}"
    return Unreachable(Reason.REFUSED if errno.ECONNREFUSED in numbers else Reason.UNREACHABLE, text)


def _is_lack(address: Address, error: OSError) -> bool:
    # where IPv6 is switched off, connect(2) to any IPv6 address gives EADDRNOTAVAIL: that is no lack of ports
    return error.errno in _NO_RESOURCES and not (error.errno == errno.EADDRNOTAVAIL and address.is_v6)
