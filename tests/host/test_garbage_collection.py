"""What tasks leave in cycles is collected before memory or descriptors run out."""

from __future__ import annotations

import asyncio

from ajhost.adapters.linux.proc import resident_bytes
from tests.support.factories import StartHost
from tests.support.router import Router, Verdict

HANDLERS = """
import os, resource, socket, time

_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))

class Node:
    pass

async def memory(task):
    node = Node()
    node.me, node.data = node, bytearray(20 << 20)
    node.data[::4096] = bytes(len(node.data[::4096]))
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096

def in_a_thread(task):
    node = Node()
    node.me, node.data = node, bytearray(20 << 20)
    node.data[::4096] = bytes(len(node.data[::4096]))
    time.sleep(0.01)

async def descriptors(task):
    node = Node()
    node.me, node.socket = node, socket.socket()
    return node.socket.fileno()
"""


async def test_cycles_that_hold_memory_or_descriptors_are_collected_in_time(
    start_host: StartHost, router: Router
) -> None:
    await start_host(
        modules={"shop": HANDLERS},
        handlers={"memory": "shop:memory", "descriptors": "shop:descriptors"},
        sections={"workers": {"count": 1}},
    )
    sizes = [(await router.request("memory", {}, deadline=10)).json() for _ in range(120)]
    assert max(sizes) - sizes[0] < 600 << 20, sizes
    # 500 a second at most, one after another: those that a slow machine lets come together would take all at once
    for _ in range(1000):
        reply = await router.request("descriptors", {}, deadline=10)
        assert reply.verdict is Verdict.COMPLETE, reply
        await asyncio.sleep(0.002)


async def test_memory_that_threads_leave_in_cycles_goes_back_to_the_system(
    start_host: StartHost, router: Router
) -> None:
    host = await start_host(
        modules={"shop": HANDLERS},
        handlers={"memory": "shop:in_a_thread"},
        sections={"workers": {"count": 1}},
    )
    before = resident_bytes(host.workers()[0])
    for _ in range(3):
        requests = [await router.send("memory", {}, deadline=20) for _ in range(20)]
        for request in requests:
            assert (await router.reply(request)).verdict is Verdict.COMPLETE
    async with asyncio.timeout(10):
        while resident_bytes(host.workers()[0]) > before + (100 << 20):  # noqa: ASYNC110  # /proc tells nobody
            await asyncio.sleep(0.05)
