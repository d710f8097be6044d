"""What goes on whatever happens to the supervisor: no fault of a moment ends its watch over the workers."""

from __future__ import annotations

import asyncio
import os
import resource
import socket

from tests.connection.conftest import StartWatched
from tests.support.factories import StartRouter
from tests.support.reported_state import says_the_truth, subscribed_again
from tests.support.router import Report

HANDLERS = {"echo": "echo", "work": "work"}


async def test_a_supervisor_without_descriptors_for_a_while_watches_on(
    start_watched: StartWatched, start_router: StartRouter
) -> None:
    server, host, pages = await start_watched(HANDLERS)
    router = await start_router()
    requests = [await router.send("work", {"sleep_ms": 6000}, deadline=20) for _ in range(4)]
    await host.running(4)
    lines = len(host.output.lines)
    soft, hard = resource.prlimit(host.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(host.pid, resource.RLIMIT_NOFILE, (_open_files(host.pid), hard))
    host.kill(0)
    address = pages.split(":")
    clients = [socket.create_connection((address[0], int(address[1]))) for _ in range(3)]
    await asyncio.sleep(3)
    for client in clients:
        client.close()
    resource.prlimit(host.pid, resource.RLIMIT_NOFILE, (soft, hard))
    await subscribed_again(server, 2, 6.0)
    await says_the_truth(host, pages, 2)
    host.kill(1)
    await subscribed_again(server, 2, 6.0)
    await router.settled(requests)
    assert not Report(tuple(requests)).silent, Report(tuple(requests))
    assert (await router.request("echo", b"x")).body == b"x"
    assert len(host.output.lines) - lines < 80


def _open_files(pid: int) -> int:
    """One more than the highest descriptor: nothing new fits below it."""
    return max(int(name) for name in os.listdir(f"/proc/{pid}/fd")) + 1
