"""Faults of a connection as values, so that any sequence of them can be drawn, told and played again."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from hypothesis import strategies as st

from tests.support.fake_nats import FALSE_SERVERS, FakeNats, is_silent
from tests.support.host import Host
from tests.support.http_page import fetch
from tests.support.nats import NatsServer
from tests.support.operator_mode import write_secret
from tests.support.proxy import Direction, Partition
from tests.support.reported_state import (
    Watch,
    listens,
    says_the_truth,
    subscribed_again,
    with_pages,
    workers_subscribed,
)
from tests.support.router import Router

BACK = 6.0
"""Seconds in which every worker is subscribed once there is a good server."""
LONGEST_LIE = 2.0
"""Seconds for which the host may say what is not so any more."""
_WORKERS = 2
_PASSWORD = "sesame"
_OF_SERVER = ("kill the server", "restart the server", "stop the server", "lame duck", "lock out")
_INJECTED = (
    b"MSG a 1 99999999999\r\n",
    b"INFO []\r\n",
    b"-ERR 'Stale Connection'\r\n",
    b"\0\0\r\n",
    b"MSG a\r\n",
)


class _Server(Enum):
    """What has become of the server."""

    WELL = "well"
    GONE = "gone"
    STILL = "still"
    LAME = "lame"


@dataclass(frozen=True, slots=True)
class Fault:
    """`kind`, with what it needs, for `seconds`."""

    kind: str
    seconds: float
    text: str = ""
    number: int = 0

    def __str__(self) -> str:
        detail = f" {self.text!r}" if self.text else f" {self.number}" if self.number else ""
        return f"{self.kind}{detail} for {self.seconds} s"


def _of(kind: str, *, texts: tuple[str, ...] = ("",), numbers: tuple[int, ...] = (0,)) -> st.SearchStrategy[Fault]:
    seconds = st.sampled_from((0.0, 0.1, 0.4, 1.0))
    return st.builds(Fault, st.just(kind), seconds, st.sampled_from(texts), st.sampled_from(numbers))


FAULTS: st.SearchStrategy[Fault] = st.one_of(
    _of("cut"),
    _of("reset"),
    _of("refuse"),
    _of("swallow"),
    _of("stall"),
    _of("delay"),
    _of("throttle"),
    _of("cut after", numbers=(0, 1, 5, 100, 400, 1000)),
    _of("corrupt", numbers=(1, 3, 5, 6, 30, 200)),
    _of("inject", numbers=tuple(range(len(_INJECTED)))),
    _of("false server", texts=tuple(FALSE_SERVERS)),
    _of("kill the server"),
    _of("restart the server"),
    _of("stop the server"),
    _of("lame duck"),
    _of("lock out"),
    _of("secret is half written"),
)


def _corrupting(place: int) -> Callable[[Direction, bytes], bytes]:
    """Flips a bit of each piece that comes from the server."""

    def change(direction: Direction, piece: bytes) -> bytes:
        if direction is Direction.TO_SERVER or place >= len(piece):
            return piece
        return piece[:place] + bytes((piece[place] ^ 0x15,)) + piece[place + 1 :]

    return change


class Company:
    """A host, its server behind a proxy, a false server, a router: what a sequence of faults is played on.

    It lives on from one sequence to the next, unless one has failed: the next then begins with new ones.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stack: AsyncExitStack | None = None
        self._ambiguous = False
        self._state = _Server.WELL
        self._played = 0

    async def _begin(self) -> None:
        self._stack = stack = AsyncExitStack()
        enter = stack.enter_async_context
        secret = write_secret(self._directory / "secret", _PASSWORD)
        self._secret = secret
        self.server = await enter(NatsServer(self._directory, config=self._config(_PASSWORD), monitored=True))
        self.fake = await enter(FakeNats(is_silent))
        self.partition = await enter(Partition(self.server.port))
        nats: dict[str, Any] = {"user": "host", "password_file": secret}
        self.sections = with_pages(count=_WORKERS, nats=nats)
        self.host = await enter(
            Host(
                self._directory,
                nats=self.partition.url,
                handlers={"echo": "echo", "work": "work"},
                sections=self.sections,
            )
        )
        self.router = await enter(Router(self.server.url, user="router", password="r"))
        await subscribed_again(self.server, _WORKERS, BACK)

    @staticmethod
    def _config(password: str) -> str:
        users = f"{{user: host, password: {password}}}, {{user: router, password: r}}"
        return f'authorization {{ users = [{users}] }}\nlame_duck_duration: "30s"\nlame_duck_grace_period: "1s"\n'

    async def _end(self) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            await stack.aclose()

    async def _truth(self) -> int | None:
        if self._state is _Server.GONE:
            return 0
        return None if self._ambiguous else await workers_subscribed(self.server)

    async def _play(self, fault: Fault) -> None:
        partition = self.partition
        match fault.kind:
            case "cut":
                await partition.cut()
            case "reset":
                await partition.reset()
            case "refuse":
                await partition.refuse()
            case "swallow":
                self._ambiguous = True
                partition.swallow()
            case "stall":
                self._ambiguous = True
                partition.stall()
            case "delay":
                partition.delay = 0.05
            case "throttle":
                partition.rate = 20_000
            case "cut after":
                partition.cut_after = fault.number
                await partition.cut()
            case "corrupt":
                self._ambiguous = True
                partition.change = _corrupting(fault.number)
                await partition.cut()
            case "inject":
                self._ambiguous = True
                partition.inject(_INJECTED[fault.number])
            case "false server":
                self.fake.script = FALSE_SERVERS[fault.text]
                partition.target = self.fake.port
                await partition.cut()
            case kind if kind in _OF_SERVER:
                await self._play_server(kind)
            case "secret is half written":
                self._secret.write_text("")
                await partition.cut()
            case kind:
                raise AssertionError(kind)
        await asyncio.sleep(fault.seconds)

    async def _play_server(self, kind: str) -> None:
        """Faults of the server itself; what is gone, stands still or is lame hears no more of some."""
        server, state = self.server, self._state
        match kind:
            case "kill the server" if state is not _Server.GONE:
                self._state = _Server.GONE
                await self._kill()
            case "restart the server":
                self._state = _Server.GONE
                if state is not _Server.GONE:
                    await self._kill()
                await server.start()
                self._state = _Server.WELL
            case "stop the server" if state is _Server.WELL:
                self._ambiguous, self._state = True, _Server.STILL
                await server.stand_still()
            case "lame duck" if state is _Server.WELL:
                self._ambiguous, self._state = True, _Server.LAME
                await server.lame_duck()
            case "lock out" if state is _Server.WELL:
                await server.reload(self._config("other"))
            case _:
                pass

    async def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # a lame duck ends by itself
            self.server.send_signal(signal.SIGKILL)
        await self.server.ended()

    async def _mend(self, faults: tuple[Fault, ...]) -> None:
        """From here on there is a good server."""
        kinds = {fault.kind for fault in faults}
        write_secret(self._secret, _PASSWORD)
        self.server.configure(self._config(_PASSWORD))
        match self._state:
            case _Server.STILL:
                await self.server.resume()
            case _Server.LAME:
                await self._kill()
                await self.server.start()
            case _Server.GONE:
                await self.server.start()
            case _Server.WELL:
                pass
        await self.server.reload(self._config(_PASSWORD))
        self._state = _Server.WELL
        self.partition.target = self.server.port
        self.partition.heal()
        if kinds & {"corrupt", "inject", "false server"}:
            await self.partition.cut()  # what has been said there is not to be trusted

    async def _running(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len((await fetch(listens(self.sections), "/status")).text.split('"running_s"')) <= count:  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def endure(self, faults: tuple[Fault, ...]) -> None:
        """Plays them one after the other, then there is a good server. Raises AssertionError."""
        self._played += 1
        try:
            if self._stack is None:
                await self._begin()
            await self._endure(faults)
        except BaseException as error:
            error.add_note(f"sequence {self._played}: {', then '.join(map(str, faults))}")
            stack, self._stack = self._stack, None
            assert stack is not None
            try:
                await stack.__aexit__(type(error), error, error.__traceback__)
            except Exception as second:
                error.add_note(f"and then {type(second).__name__}")
            raise

    async def _endure(self, faults: tuple[Fault, ...]) -> None:
        lines = len(self.host.output.lines)
        lasting = (200, 1000, 1500, 3000)
        requests = [await self.router.send("work", {"sleep_ms": ms}, deadline=40) for ms in lasting]
        await self._running(3)
        self._ambiguous = False
        async with Watch(self.host, listens(self.sections), _WORKERS, self._truth) as watch:
            for fault in faults:
                await self._play(fault)
            self._ambiguous = True
            await self._mend(faults)
            began = time.monotonic()
            await subscribed_again(self.server, _WORKERS, BACK)
            await says_the_truth(self.host, listens(self.sections), _WORKERS)
        assert time.monotonic() - began < BACK + 3
        assert watch.longest().seconds < LONGEST_LIE, watch.longest()
        for request in requests:
            await self.router.reply(request)  # raises when it is silent
        assert (await self.router.request("echo", b"x")).body == b"x"
        assert len(self.host.output.lines) - lines < 40 + 30 * len(faults)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()
