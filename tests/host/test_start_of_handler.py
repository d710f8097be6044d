"""What counts as started: a handler's first instruction, and nothing before it."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.support.factories import StartHost
from tests.support.router import Report, Router, Verdict

HANDLERS = {"work": "work", "sync": "work_sync", "block": "block_loop", "exit": "exit_now", "echo": "echo"}
ONE = {"workers": {"count": 1}}


def runs(record: Path) -> Counter[str]:
    """How often each task began, by its id."""
    return Counter(record.read_text().split()[::2] if record.exists() else ())


@pytest.mark.parametrize("fault", ["block", "exit"])
async def test_what_comes_together_with_a_task_that_takes_its_worker_away_runs_elsewhere(
    tmp_path: Path, start_host: StartHost, router: Router, fault: str
) -> None:
    record = tmp_path / "runs"
    await start_host(handlers=HANDLERS, sections=ONE)
    first = await router.send(fault, {"block_ms": 4000}, deadline=20)
    # in the same chunk, and there is a slot for each
    requests = [await router.send("work", {"sleep_ms": 1, "record": str(record)}, deadline=20) for _ in range(12)]
    replies = await asyncio.gather(*map(router.reply, requests))
    assert {reply.verdict for reply in replies} == {Verdict.COMPLETE}
    assert fault == "exit" or not first.replies, "the others are answered while it blocks"
    assert runs(record) == dict.fromkeys((request.id for request in requests), 1)
    assert (await router.reply(first)).word == ("worker died:" if fault == "exit" else ":")


@pytest.mark.parametrize("route", ["work", "sync"])
async def test_what_a_new_worker_pulls_together_with_a_task_that_takes_it_away_runs_elsewhere(
    tmp_path: Path, start_host: StartHost, router: Router, route: str
) -> None:
    """Tasks that kill their workers wait before others: each new worker pulls as many as it has slots."""
    record = tmp_path / "runs"
    host = await start_host(handlers=HANDLERS, sections=ONE)
    stopped = host.kill(0, signal.SIGSTOP)  # what comes is taken over, and waits for the next worker
    poison = [await router.send("exit", {}, deadline=20) for _ in range(2)]
    requests = [await router.send(route, {"sleep_ms": 1, "record": str(record)}, deadline=20) for _ in range(12)]
    await asyncio.gather(*map(router.reply, requests))
    if route == "work":
        assert {request.verdict for request in requests} == {Verdict.COMPLETE}
    # a thread may have begun, and not have come to its first line
    assert Report(tuple(requests)).words.keys() <= {"worker died:"}
    found = runs(record)
    assert all(found[request.id] == 1 for request in requests if request.verdict is Verdict.COMPLETE)
    assert set(found.values()) == {1}
    assert {(await router.reply(one)).word for one in poison} == {"worker died:"}
    assert stopped not in host.workers().values()


async def test_what_a_worker_has_pulled_and_not_begun_runs_elsewhere_while_it_hangs(
    tmp_path: Path, start_host: StartHost, router: Router
) -> None:
    """Slots that become free in one turn of the loop are filled in it, and the first task that begins blocks."""
    record = tmp_path / "runs"
    source = """
import asyncio
ENDED = asyncio.Event()
async def wait(task):
    await ENDED.wait()
async def end(task):
    ENDED.set()
"""
    sections = {"workers": {"count": 1, "concurrency": 5, "backlog": 50}}
    handlers = {**HANDLERS, "wait": "together:wait", "end": "together:end"}
    host = await start_host(handlers=handlers, modules={"together": source}, sections=sections)
    waiting = [await router.send("wait", {}, deadline=20) for _ in range(4)]
    await host.running(4)
    together = [await router.send(route, {"block_ms": 4000}, deadline=20) for route in ("end", "block")]
    requests = [await router.send("work", {"sleep_ms": 1, "record": str(record)}, deadline=20) for _ in range(8)]
    replies = await asyncio.gather(*map(router.reply, requests))
    assert {reply.verdict for reply in replies} == {Verdict.COMPLETE}
    assert not together[1].replies, "they are answered while it blocks"
    assert runs(record) == dict.fromkeys((request.id for request in requests), 1)
    for request in (*waiting, *together):
        assert (await router.reply(request)).verdict is Verdict.COMPLETE
