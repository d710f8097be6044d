"""Workers that beat and do not serve: reader removed, no descriptor left to connect again."""

from __future__ import annotations

import asyncio
import time

from tests.support import processes
from tests.support.factories import StartHost, StartRouter
from tests.support.nats import NatsServer
from tests.support.router import Router, Verdict

SOURCE = """
import asyncio, os, resource, socket, threading, time

def connections():
    for name in os.listdir("/proc/self/fd"):
        try:
            with socket.socket(fileno=os.dup(int(name))) as sock:
                if sock.family == socket.AF_INET and sock.getpeername()[1]:
                    yield int(name)
        except OSError:
            continue

async def unread(task):
    for number in list(connections()):
        asyncio.get_running_loop().remove_reader(number)
    return os.getpid()

async def leak(task):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    threading.Thread(target=keep_all, daemon=True).start()
    return os.getpid()

def keep_all():
    while True:
        try:
            os.open("/dev/null", os.O_RDONLY)
        except OSError:
            time.sleep(0.0001)
"""
HANDLERS = {
    "echo": "echo",
    "work": "work",
    "unread": "deaf:unread",
    "leak": "deaf:leak",
}


async def test_a_worker_that_beats_and_does_not_read_costs_no_answer(start_host: StartHost, router: Router) -> None:
    host = await start_host(handlers=HANDLERS, modules={"deaf": SOURCE}, sections={"workers": {"kill_grace": 0.5}})
    async with router.load("work", {"sleep_ms": 2}, rate=50, deadline=8) as load:
        await load.sent(10)
        deaf = await router.send("unread", {}, deadline=5)
        await load.sent(300)
    report = load.report()
    assert not report.silent, report
    assert not report.late, report
    assert not report.no_responders, report
    assert report.verdicts[Verdict.COMPLETE] >= len(report.requests) - 16, report
    assert (await router.reply(deaf)).verdict in (Verdict.COMPLETE, Verdict.ERROR)
    replies = await asyncio.gather(*(router.request("echo", b"x") for _ in range(20)))
    assert {reply.verdict for reply in replies} == {Verdict.COMPLETE}
    assert (await host.status())["supervisor"]["ready"]


async def test_the_only_worker_without_a_descriptor_to_connect_again_is_replaced_and_told_why(
    nats_server: NatsServer, start_host: StartHost, start_router: StartRouter, router: Router
) -> None:
    host = await start_host(
        handlers=HANDLERS, modules={"deaf": SOURCE}, sections={"workers": {"count": 1, "kill_grace": 0.5}}
    )
    old = host.workers()[0]
    assert (await router.request("leak", {})).verdict is Verdict.COMPLETE
    await nats_server.restart()
    began = time.monotonic()
    await host.log("too many open files: 256 of 256")
    await host.log("serves, generation 1", since=len(host.output.having("")) - 1)
    assert time.monotonic() - began < 10
    again = await start_router()
    assert (await again.request("echo", b"alive", deadline=10)).body == b"alive"
    await processes.gone(old)
