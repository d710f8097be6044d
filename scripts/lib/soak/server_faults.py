"""Faults of the server at random instants. Each is a coroutine that does its harm."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from scripts.lib.soak.stage import BACK_AFTER_REFUSAL, PASSWORD, Event, Stage, Window, server_config
from tests.support.fake_nats import FALSE_SERVERS, FakeNats
from tests.support.operator_mode import write_secret
from tests.support.proxy import BlackHole


async def server_fault(stage: Stage) -> None:
    """nats-server is stopped or killed, and comes back after a moment."""
    async with stage.server_lock:
        kill = stage.rng.random() < 0.5
        name = "nats-server kill -9" if kill else "nats-server restart"
        stage.note(name)
        window = Window(name, time.time())
        stage.server_windows.append(window)
        stage.router.connected.clear()
        await (stage.server.kill() if kill else stage.server.stop())
        await asyncio.sleep(stage.rng.choice((0.0, 0.0, 0.3, 1.5, 3.0)))
        await stage.server.start()
        await stage.router.connected.wait()
        window.end = time.time()


async def server_stands_still(stage: Stage) -> None:
    """SIGSTOP of nats-server, and SIGCONT after a while: nothing passes through it, and it has what it was given."""
    async with stage.server_lock:
        seconds = stage.rng.choice((0.2, 0.7, 1.5, 3.0))
        stage.note("nats-server stopped", f"for {seconds} s")
        window = Window("nats-server stopped", time.time(), back=0.0)  # connections outlive it
        stage.still_windows.append(window)
        stage.server.send_signal(signal.SIGSTOP)
        await asyncio.sleep(seconds)
        stage.server.send_signal(signal.SIGCONT)
        # two stops without a word in between are one long one, in which clients give their connections up
        await stage.router.barrier()
        window.end = time.time()


async def server_is_silent(stage: Stage) -> None:
    """As `server_stands_still`, but for so long that its clients give their connections up."""
    async with _server_window(stage, "nats-server silent"):
        stage.server.send_signal(signal.SIGSTOP)
        await asyncio.sleep(stage.rng.uniform(7, 9))
        stage.server.send_signal(signal.SIGCONT)


async def server_is_a_black_hole(stage: Stage) -> None:
    """Killed, and its address takes no connection and refuses none for a while."""
    async with _server_window(stage, "nats-server in a black hole"):
        stage.router.connected.clear()
        await stage.server.kill()
        with BlackHole("127.0.0.1", stage.server.port):
            await asyncio.sleep(stage.rng.uniform(1, 5))
        await stage.server.start()
        await stage.router.connected.wait()


async def server_beside_is_false(stage: Stage) -> None:
    """The host's other server, where nobody listens otherwise, greets wrongly, is silent or refuses."""
    async with _server_window(stage, "false server beside"):
        kind = stage.rng.choice(tuple(FALSE_SERVERS))
        stage.events.append(Event(time.time(), f"the false server: {kind}"))
        async with FakeNats(FALSE_SERVERS[kind], port=stage.false_port):
            stage.router.connected.clear()
            await stage.server.restart()
            await stage.router.connected.wait()
            await asyncio.sleep(stage.rng.uniform(0.5, 4))


async def server_is_a_lame_duck(stage: Stage) -> None:
    """It tells its clients to go, ends their connections one by one, ends, and comes back."""
    async with _server_window(stage, "nats-server lame duck"):
        stage.router.connected.clear()
        await stage.server.lame_duck()
        await stage.server.ended(60)
        await stage.server.start()
        await stage.router.connected.wait()


async def permissions_are_lost(stage: Stage) -> None:
    """The host may not subscribe for a while."""
    async with _server_window(stage, "permissions lost"):
        await stage.server.reload(server_config(may="_INBOX.>"))
        await asyncio.sleep(stage.rng.uniform(0.5, 5))
        await stage.server.reload(server_config())


async def locked_out(stage: Stage) -> None:
    """The host's password is another one for a while."""
    async with _server_window(stage, "locked out"):
        await stage.server.reload(server_config(password="another"))
        await asyncio.sleep(stage.rng.uniform(0.5, 8))
        await stage.server.reload(server_config())


async def secret_is_truncated(stage: Stage) -> None:
    """The file of the password is empty when connections are made again, and whole again later."""
    # a start, and a reload, read the file too: without it they are right to refuse
    async with stage.host_lock, _server_window(stage, "secret truncated"):
        stage.service.secret.write_text("")
        stage.router.connected.clear()
        await stage.server.restart()
        await stage.router.connected.wait()
        await asyncio.sleep(stage.rng.uniform(0.1, 3))
        write_secret(stage.service.secret, PASSWORD)


@asynccontextmanager
async def _server_window(stage: Stage, name: str) -> AsyncIterator[None]:
    """While it lasts, and a while after it, the server may not pass on what it is given."""
    async with stage.server_lock:
        stage.note(name)
        window = Window(name, time.time(), back=BACK_AFTER_REFUSAL)
        stage.server_windows.append(window)
        try:
            yield
        finally:
            window.end = time.time()
