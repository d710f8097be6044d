"""`ajhost top` on a real terminal: what it shows, what its keys do, and how it ends."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio

from tests.support.factories import NewHost
from tests.support.host import Host
from tests.support.nats import NatsServer
from tests.support.router import Router
from tests.support.terminal import Screen, Terminal

HANDLERS = {"echo": "echo", "work": "work", "email:new": "work", "": "work"}
QUICK = ("--interval", "0.1")


def terminal(host: Host, *arguments: str, **more: Any) -> Terminal:
    """`ajhost top` of a host on a terminal."""
    program = (sys.executable, "-m", "ajhost", "top", "-c", str(host.file), *QUICK, *arguments)
    environment = {name: value for name, value in host.environment.items() if name != "NO_COLOR"}
    return Terminal(*program, env=environment | {"TERM": "xterm-256color"} | more.pop("env", {}), **more)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host(server: NatsServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Host]:
    async with Host(tmp_path_factory.mktemp("host"), nats=server.url, handlers=HANDLERS) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def router(server: NatsServer, host: Host) -> AsyncIterator[Router]:
    async with Router(server.url) as connected:
        yield connected


pytestmark = pytest.mark.asyncio(loop_scope="module")


def table(screen: Screen, name: str) -> list[str]:
    """The rows of a table, the columns' titles first; none while it is not drawn."""
    start = next((index for index, line in enumerate(screen) if line.startswith(f"{name} (")), len(screen))
    rest = screen[start + 1 : -1]
    ends = (index for index, line in enumerate(rest) if re.match(r"(Workers|Routes|Running tasks) \(", line))
    return [line for line in rest[: next(ends, len(rest))] if line]


def titles(screen: Screen) -> list[str]:
    """The tables on the screen, which is drawn line by line."""
    return [found[1] for line in screen if (found := re.match(r"(Workers|Routes|Running tasks) \(", line))]


def column(screen: Screen, name: str, number: int) -> list[str]:
    """A column of a table, its title first."""
    return [(line.split() + [""] * number)[number] for line in table(screen, name)]


async def test_it_shows_what_status_shows_as_it_changes(host: Host, router: Router) -> None:
    async with terminal(host) as top:
        await top.shows("2 of 2 slots serve")
        await top.reads(lambda s: column(s, "Workers", 3)[1:], ["serving", "serving"])
        await top.reads(lambda s: set(column(s, "Routes", 0)[1:]), {"echo", "work", "email:new", '""'})
        await top.reads(lambda s: table(s, "Running tasks"), ["none"])
        first = await router.send("work", {"sleep_ms": 60_000}, deadline=60.0)
        await top.shows(first.id)
        second = await router.send("email:new", {"sleep_ms": 60_000}, deadline=60.0)
        await top.reads(lambda s: column(s, "Running tasks", 1)[1:], [first.id, second.id])
        top.type("3r")
        await top.reads(lambda s: column(s, "Running tasks", 1)[1:], [second.id, first.id])
        for task in (first, second):
            assert (await host.command("cancel", task.id)).status == 0
        await top.reads(lambda s: table(s, "Running tasks"), ["none"])


async def test_rows_are_sorted_and_filtered_by_keys(host: Host, router: Router) -> None:
    for _ in range(5):
        await router.request("work", {"sleep_ms": 1})
    await router.request("echo")
    async with terminal(host, columns=120) as top:
        await top.shows("Routes (4)")
        top.type("2" + "<" * 3)
        await top.shows("by ROUTE")
        await top.reads(lambda s: column(s, "Routes", 0)[1:], ['""', "echo", "email:new", "work"])
        top.type("<" * 4)
        await top.shows("by COMPLETED")
        await top.reads(lambda s: column(s, "Routes", 0)[1:3], ["work", "echo"])
        top.type("r")
        await top.shows("by COMPLETED, the other way round")
        await top.reads(lambda s: column(s, "Routes", 0)[3:], ["echo", "work"])
        top.type("/MAIL")
        await top.shows("Routes with: MAIL_")
        await top.reads(lambda s: column(s, "Routes", 0)[1:], ["email:new"])
        top.type("\r")
        await top.shows('Routes (1 of 4 with "MAIL")')
        top.type("\x1b")
        await top.shows("Routes (4)")


async def test_a_table_alone_fills_the_screen_and_a_window_may_change(host: Host) -> None:
    async with terminal(host) as top:
        await top.shows("Workers (2)")
        top.type("2\r")
        await top.reads(lambda s: (titles(s), len(table(s, "Routes"))), (["Routes"], 5))
        top.resize(40, 10)
        await top.until(lambda s: len(s) == 10 and s[-1].startswith("q quit") and "PER S" in "".join(s))
        await top.until(lambda s: "COMPLETED" not in "".join(s))
        top.resize(200, 50)
        await top.until(lambda s: len(s) == 50 and s[-1].startswith("q quit") and "TERMINATED" in "".join(s))


async def test_it_ends_at_once_and_leaves_the_terminal_as_it_was(host: Host) -> None:
    async with AsyncExitStack() as stack:
        ends: list[str | signal.Signals] = ["q", "\x03", signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
        open_ones = [await stack.enter_async_context(terminal(host, "--interval", "60")) for _ in ends]
        for end, top in zip(ends, open_ones, strict=True):
            await top.shows("Workers (2)")
            assert top.settings_now != top.settings
            if isinstance(end, str):
                top.type(end)
            else:
                top.send_signal(end)
            assert await top.ended(timeout=20.0) == 0, end
            assert top.settings_now == top.settings
            assert not top.cursor_hidden
            assert top.written.count(b"\x1b[?1049h") == top.written.count(b"\x1b[?1049l") == 1


async def test_without_colours_there_are_none(host: Host) -> None:
    async with terminal(host, env={"NO_COLOR": "1"}) as top, terminal(host) as coloured:
        await top.shows("serving")
        assert {char.fg for row in top.cells for char in row} == {"default"}
        await coloured.until(lambda _: {char.fg for row in coloured.cells for char in row} > {"default"})


async def test_what_is_no_terminal_gets_one_snapshot(host: Host) -> None:
    piped = await host.command("top")
    assert (piped.status, piped.stderr) == (0, "")
    assert "\x1b" not in piped.stdout
    assert "2 of 2 slots serve" in piped.stdout
    async with terminal(host, env={"TERM": "dumb"}) as top:
        await top.shows("ROUTE")
        assert await top.ended() == 0
        assert top.screen[0].startswith("the terminal (dumb) cannot move its cursor")
        assert b"\x1b" not in top.written


async def test_a_host_that_goes_away_is_told_and_found_again(host: Host) -> None:
    async with terminal(host) as top:
        await top.shows("2 of 2 slots serve")
        host.send_signal(signal.SIGKILL)
        await host.wait()
        await top.until(lambda s: s[0].startswith(f"no ajhost runs on {host.runtime}"[:60]))
        await top.until(lambda s: any(line.startswith("Workers (") for line in s))  # what was there last
        await host.restart()
        await top.until(lambda s: not s[0].startswith("no ajhost runs") and f"supervisor pid {host.pid}" in s[1])


async def test_no_host_is_an_error(server: NatsServer, new_host: NewHost) -> None:
    host = new_host(nats=server.url)
    async with terminal(host) as top:
        assert await top.ended() == 3
        assert top.screen[0].startswith("no ajhost runs on ")
