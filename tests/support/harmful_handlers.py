"""Handlers that meddle with what their worker needs: its socket, its loop's readers, its descriptors, its look-ups."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
from collections.abc import Iterator

from ajhost import Task

_held: list[int] = []


def _connections(task: Task) -> Iterator[int]:
    """The descriptors of this process whose peer has the port that the payload names."""
    port = task.json()["port"]
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            sock = socket.socket(fileno=os.dup(int(name)))
            with sock:
                if sock.family in (socket.AF_INET, socket.AF_INET6) and sock.getpeername()[1] == port:
                    yield int(name)


async def close_connection(task: Task) -> int:
    """Closes the worker's connection by its number, as a double close in a library does."""
    found = list(_connections(task))
    for fd in found:
        os.close(fd)
    return len(found)


async def steal_connection(task: Task) -> int:
    """Puts another file in the place of the worker's connection, as a double close and a reuse do."""
    found = list(_connections(task))
    null = os.open("/dev/null", os.O_RDWR)
    for fd in found:
        os.dup2(null, fd)
    os.close(null)
    return len(found)


async def remove_reader(task: Task) -> int:
    """Takes the reader of the worker's connection away from the loop."""
    found = list(_connections(task))
    for fd in found:
        asyncio.get_running_loop().remove_reader(fd)
    return len(found)


_leaking: set[asyncio.Task[None]] = set()


async def _leak() -> None:
    while True:
        with contextlib.suppress(OSError):
            while True:
                _held.append(os.open("/dev/null", os.O_RDONLY))
        await asyncio.sleep(0.001)


async def leak_descriptors(task: Task) -> int:
    """Uses up every descriptor that the process may have, and each that becomes free later."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    _leaking.add(asyncio.create_task(_leak()))
    await asyncio.sleep(0.05)
    return len(_held)


async def look_up(task: Task) -> str:
    """Looks up a name, as every client library does."""
    try:
        await asyncio.get_running_loop().getaddrinfo(task.json()["name"], 80)
    except OSError as error:
        return str(error)
    return "found"


async def huge_later(task: Task) -> bytes:
    """`bytes` bytes, after `sleep_ms`."""
    wanted = task.json()
    await asyncio.sleep(wanted["sleep_ms"] / 1000)
    return b"x" * int(wanted["bytes"])
