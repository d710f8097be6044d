"""`ajhost status` and `ajhost tasks` of a host that has work: what they show, and in which order."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from pathlib import Path

import pytest

from ajhost import __version__
from ajhost.roles.control_client import control
from tests.support import processes
from tests.support.factories import StartHost
from tests.support.host import Host
from tests.support.nats import NatsServer
from tests.support.router import Router, Verdict

HANDLERS = {"echo": "echo", "work": "work", "": "work"}


async def test_status_shows_settings_connection_workers_routes_and_tasks(
    nats_server: NatsServer, start_host: StartHost, router: Router
) -> None:
    sections = {"workers": {"count": 1, "concurrency": 2}}
    host = await start_host(handlers=HANDLERS, sections=sections)
    for _ in range(5):
        assert (await router.request("echo", b"x")).verdict is Verdict.COMPLETE
    await router.request("work", {"kind": "error"})
    long = [await router.send("work", {"sleep_ms": 60_000}, deadline=60.0) for _ in range(4)]
    async with asyncio.timeout(20):
        while True:
            told = await host.status()
            routes = {route["route"]: route for route in told["routes"]}
            if (routes["work"]["running"], routes["work"]["waiting"]) == (2, 2):
                break
    assert (routes["echo"]["received"], routes["echo"]["completed"]) == (5, 5)
    assert (routes["work"]["received"], routes["work"]["failed"]["handler error"]) == (5, 1)
    supervisor = told["supervisor"]
    shown = processes.info(supervisor["pid"])
    assert shown is not None
    assert shown.title.startswith("ajhost: supervisor"), "what it is in `ps`, though it was forked"
    assert (supervisor["version"], Path(supervisor["settings"]).name) == (__version__, "ajhost.toml")
    assert 0 < supervisor["uptime_s"] < 120
    (worker,) = told["workers"]
    assert worker["memory"] > 1 << 20
    text = (await host.command("status")).stdout
    where = nats_server.url.removeprefix("nats://")
    assert text.startswith(f"ajhost {__version__}, settings {supervisor['settings']}, up ")
    assert f"ready, {where} for " in text
    assert "1 of 1 slots serve" in text
    assert re.search(rf"^ +0 +\d+ +1 +serving +2 +\d+ MiB +\d+% +{where} for ", text, re.MULTILINE)
    assert re.search(r"^work +2 +2 ", text, re.MULTILINE)
    assert text.index(long[0].id) < text.index(long[1].id), "the oldest first"
    assert long[2].id not in text, "it waits"


async def test_tasks_are_shown_by_route_and_age_the_oldest_first(start_host: StartHost, router: Router) -> None:
    host = await start_host(handlers=HANDLERS)
    assert (await host.command("tasks")).stdout == ""
    first = await router.send("work", {"sleep_ms": 60_000}, deadline=60.0)
    await host.running(1)  # two workers begin in no certain order
    second = await router.send("catchall", {"sleep_ms": 60_000}, task_type="other", deadline=60.0)
    await host.running(2)

    async def ids(*arguments: str) -> list[str]:
        result = await host.command("tasks", "--json", *arguments)
        assert result.status == 0, result
        return [task["id"] for task in json.loads(result.stdout)]

    assert await ids() == [first.id, second.id]
    assert await ids("--route", "work") == [first.id]
    assert await ids("--route", "catchall") == [second.id]
    assert await ids("--route", "echo") == []
    assert await ids("--older", "1h") == []
    assert await ids("--older", "1ms") == [first.id, second.id]
    assert await ids("--older", "1e-3") == [first.id, second.id]
    looks = [(await host.status())["workers"] for _ in range(2)]
    assert len({task["deadline"] for look in looks for worker in look for task in worker["tasks"]}) <= 2
    table = (await host.command("tasks")).stdout
    assert table.index(first.id) < table.index(second.id)


async def test_an_age_that_is_none_is_told_with_what_is_allowed(host: Host) -> None:
    for older in ("soon", "10 parsecs", "-1s", ""):
        result = await host.command("tasks", f"--older={older}")
        assert (result.status, result.stdout) == (2, "")
        assert "allowed: a number with ms, s, m, h or d, like 10s" in " ".join(result.stderr.split())


async def test_what_no_task_matches_is_told_beside_the_output(host: Host) -> None:
    for options, text in (
        ((), "no task runs"),
        (("--older", "1h"), "no task runs of that route and age"),
        (("--route", "ehco"), "the host has no route 'ehco'; it has 'echo'"),
    ):
        result = await host.command("tasks", *options)
        assert (result.status, result.stdout, result.stderr.strip()) == (0, "", text)
    assert (await host.command("tasks", "--json")).stdout == "[]\n"


async def test_a_supervisor_that_hangs_is_shown_and_does_not_do_late_what_nobody_waits_for(
    host: Host, router: Router
) -> None:
    assert (await host.status())["supervisor"]["silent_s"] == 0
    host.send_signal(signal.SIGSTOP)
    try:
        async with asyncio.timeout(30):
            while not (told := (await host.status())["supervisor"]["silent_s"]):
                pass  # each look is a process
        assert 3 < told < 30
        shown = await host.command("status")
        assert (shown.status, ", hangs: no sign of life for " in shown.stdout) == (0, True), shown
        assert (await router.request("echo", b"x")).verdict is Verdict.COMPLETE, "workers serve on"
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(control, host.runtime, 0.2, {"ask": "drain", "settings": host.file})
    finally:
        host.send_signal(signal.SIGCONT)
    await host.log("who waits no more: not done")
    told_now = await host.status()
    assert (told_now["draining"], told_now["serving"], told_now["supervisor"]["silent_s"]) == (
        False,
        2,
        0,
    )
