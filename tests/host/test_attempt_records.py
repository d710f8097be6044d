"""The log says what became of each attempt that did not complete: one record, by whoever answered it."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

from ajhost.adapters.linux.stats_files import read_all
from tests.support.factories import StartHost
from tests.support.host import Host
from tests.support.router import Request, Router, Verdict, headers_of, subject_of, task_json

HANDLERS = {
    "echo": "echo",
    "work": "work",
    "work-sync": "work_sync",
    "terminate": "terminate",
    "huge": "huge_result",
    "unserialisable": "unserialisable",
    "kill": "kill_self",
    "block": "block_loop",
}


def records(host: Host, request: Request) -> list[str]:
    """Level and text of each record that says how a request ended; its stack at its deadline is another."""
    found = re.findall(rf"^\S+ \S+ (\w+) +[\w ]+: (.*) \[\S+ {request.id}\]$", host.log_text(), re.MULTILINE)
    return [f"{level} {text}" for level, text in found if ": at its deadline, " not in text]


INCOMPLETE: list[tuple[str, dict[str, Any], float, str]] = [
    ("work", {"kind": "error"}, 10.0, r"ERROR route 'work': \w+: .*"),
    ("work-sync", {"kind": "error"}, 10.0, r"ERROR route 'work-sync': \w+: .*"),
    ("terminate", {}, 10.0, r"INFO route 'terminate': AJ-Terminate: .*"),
    ("work", {"sleep_ms": 60_000}, 2.0, r"WARNING route 'work': AJ-Error: deadline exceeded: .*"),
    ("huge", {"bytes": 2_000_000}, 10.0, r"WARNING route 'huge': AJ-Terminate: result too large.*"),
    ("unserialisable", {}, 10.0, r"WARNING route 'unserialisable': AJ-\w+: .*cannot be .*"),
    ("kill", {}, 10.0, r"WARNING route 'kill': AJ-Error: worker died: .*SIGKILL.*"),
    ("block", {"block_ms": 4000}, 2.0, r"WARNING route 'block': AJ-Error: deadline exceeded: .*"),
]


async def test_an_attempt_that_does_not_complete_leaves_one_record(start_host: StartHost, router: Router) -> None:
    sections = {"workers": {"count": 1, "kill_grace": 5.0}}
    host = await start_host(handlers=HANDLERS, sections=sections)
    for route, payload, deadline, record in INCOMPLETE:
        request = await router.send(route, payload, deadline=deadline)
        assert (await router.reply(request)).verdict in (Verdict.ERROR, Verdict.TERMINATE)
        await host.log(lambda line, request=request: request.id in line)  # type: ignore[misc]
        assert (await router.request("echo", b"x", deadline=20.0)).verdict is Verdict.COMPLETE
        (found,) = records(host, request)
        assert re.fullmatch(record, found)


async def test_tasks_that_complete_are_in_the_log_if_it_is_to_have_all(start_host: StartHost, router: Router) -> None:
    sections = {"log": {"tasks": "all"}}
    host = await start_host(sections=sections)
    request = await router.send("echo", b"x")
    assert (await router.reply(request)).verdict is Verdict.COMPLETE
    await host.log(lambda line: request.id in line)
    (found,) = records(host, request)
    assert re.fullmatch(r"INFO route 'echo': completed in \S+ s", found)


async def test_refusals_are_told_once_for_each_reason_and_then_with_a_count(
    start_host: StartHost, router: Router
) -> None:
    host = await start_host(handlers=HANDLERS, sections={"workers": {"count": 1}})
    for _ in range(3):
        garbled = await router.send_raw("CHORIA_AJ.H.T.echo", b"{", None)
        assert (await router.reply(garbled)).word == "bad request:"
        past = headers_of(int(time.time()) - 1)
        late = await router.send_raw(subject_of("echo"), task_json("echo", b"x"), past)
        assert (await router.reply(late)).word == "deadline exceeded:"
    assert await host.terminate() == 0
    told = [line for line in host.log_text().splitlines() if "refused" in line]
    assert [re.sub(r"^.*?: |\d+ s|, the last.*", "", line)[:28] for line in told] == [
        "refused: bad request: the ta",
        "refused: deadline exceeded: ",
        "refused 2 more in ",
        "refused 2 more in ",
    ]


async def test_every_answer_is_counted_by_its_route_over_deaths_reloads_and_restarts(
    start_host: StartHost, router: Router
) -> None:
    host = await start_host(handlers=HANDLERS)
    for turn in range(1, 4):
        for _ in range(20):
            assert (await router.request("echo", b"x")).verdict is Verdict.COMPLETE
        await router.request("work", {"kind": "error"})
        await router.request("terminate")
        assert (await router.request("kill")).word == "worker died:"
        assert (await router.reply(await router.send_raw("CHORIA_AJ.H.T.echo", b"[]", None))).text
        found = read_all(host.runtime / "stats")
        assert (found["echo"].answered, found["echo"].completed) == (20 * turn, 20 * turn)
        assert found["work"].failed["handler error"] == turn
        assert found["terminate"].terminated == turn
        assert found["kill"].failed["worker died"] == found["kill"].answered == turn
        assert found[None].refused["bad request"] == found[None].answered == turn
        assert {route: stats.answered for route, stats in found.items()} == {
            route: stats.answered for route, stats in found.items()
        }
        if turn == 1:
            assert (await host.reload()).status == 0
        elif turn == 2:
            assert await host.terminate() == 0
            await host.restart()


async def test_how_long_requests_waited_and_ran_is_counted(start_host: StartHost, router: Router) -> None:
    sections = {"workers": {"count": 2, "concurrency": 1}}
    host = await start_host(handlers=HANDLERS, sections=sections)
    began = time.monotonic()
    sent = [await router.send("work", {"sleep_ms": 300}) for _ in range(6)]
    for request in sent:
        assert (await router.reply(request)).verdict is Verdict.COMPLETE
    took = time.monotonic() - began
    stats = read_all(host.runtime / "stats")["work"]
    assert stats.running.count == stats.waiting.count == 6
    async with asyncio.timeout(10):  # sums of times follow at the next heartbeat
        while stats.running.total < 1.79:  # a loop's timer may fire a millisecond early
            await asyncio.sleep(0.02)
            stats = read_all(host.runtime / "stats")["work"]
    assert 1.79 <= stats.running.total < 2 * took, "two at once"
    # of each worker's three, one begins at once, one after 0.3 s and one after 0.6 s, if they are spread evenly
    assert 1.6 <= stats.waiting.total < 6 * took
    assert dict(stats.running.cumulative())["0.2"] == 0


async def test_records_of_a_reason_are_limited_by_the_settings_and_the_rest_is_counted(
    start_host: StartHost, router: Router
) -> None:
    sections = {"workers": {"count": 1}, "log.limits": {"handler error": 2}}
    host = await start_host(handlers=HANDLERS, sections=sections)
    for route in ["work"] * 6 + ["work-sync"] * 3:
        assert (await router.request(route, {"kind": "error"})).word == "handler error:"
    assert (await router.request("terminate")).verdict is Verdict.TERMINATE
    await host.log("route 'terminate'")
    assert len(host.output.having(" ERROR ")) == 2
    assert await host.terminate() == 0
    await host.log("handler error: 7 more in ")


SLOW_HOOK = """
import logging, pathlib, time
from ajhost import Task

here = pathlib.Path(__file__).parent

class Hook(logging.Handler):
    def emit(self, record):
        end = time.monotonic() + 8
        while not (here / f"answered {record.aj_type}").exists() and time.monotonic() < end:
            time.sleep(0.01)
        (here / f"told {record.aj_type}").touch()

logging.getLogger().addHandler(Hook(logging.ERROR))

async def on_loop(task: Task):
    raise RuntimeError("no")

def in_thread(task: Task):
    raise RuntimeError("no")
"""


async def test_the_answer_does_not_wait_for_a_hook_that_hears_of_the_exception(
    start_host: StartHost, router: Router
) -> None:
    routes = {"loop": "slow_hook:on_loop", "thread": "slow_hook:in_thread"}
    modules = {"slow_hook": SLOW_HOOK}
    sections = {"workers": {"count": 1}}
    host = await start_host(handlers=routes, modules=modules, sections=sections)
    for route in routes:
        request = await router.send(route, b"x", deadline=30.0)
        reply = await router.reply(request)
        assert not (host.application / f"told {route}").exists()
        (host.application / f"answered {route}").touch()
        assert (reply.verdict, reply.text) == (Verdict.ERROR, "handler error: RuntimeError: no")
        await host.log(lambda line, request=request: request.id in line)  # type: ignore[misc]
        assert records(host, request) == [f"ERROR route '{route}': RuntimeError: no"]
