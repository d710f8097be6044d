"""A limit of the whole host: so many tasks of a route at once, in all workers together, over kills and reloads."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from pathlib import Path

from tests.support.factories import Enter, NewHost
from tests.support.host import Host
from tests.support.router import Router, Verdict

HANDLERS = """
import asyncio, os, time
from pathlib import Path

RUNNING = Path({running!r})

def _alive(pid):
    try:
        with open(f"/proc/{{pid}}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
            return fields[0] not in "ZX" and not int(fields[6]) & 4  # PF_EXITING: it runs no code any more
    except OSError:
        return False

def _begin(task):
    mine = RUNNING / f"{{os.getpid()}} {{task.id}}"
    mine.touch()
    names = [name for name in os.listdir(RUNNING) if _alive(name.split()[0])]
    with open(RUNNING.parent / "counts", "a") as counts:
        counts.write(f"{{len(names)}}\\n")
    return mine

async def limited(task):
    mine = _begin(task)
    await asyncio.sleep(task.json()["seconds"])
    mine.unlink()
    return os.getpid()

def limited_sync(task):
    mine = _begin(task)
    time.sleep(task.json()["seconds"])
    mine.unlink()

async def free(task):
    return os.getpid()
"""


SECTIONS = {"workers": {"count": 4, "concurrency": 8}}


def _host(new_host: NewHost, tmp_path: Path, limit: int, handler: str = "limited") -> Host:
    (tmp_path / "running").mkdir()
    (tmp_path / "counts").touch()
    return new_host(
        directory=tmp_path,
        modules={"shop": HANDLERS.format(running=str(tmp_path / "running"))},
        handlers=_handlers(limit, handler),
        sections=SECTIONS,
    )


def _handlers(limit: int, handler: str = "limited") -> dict[str, str | dict[str, object]]:
    return {"limited": {"target": f"shop:{handler}", "host_concurrency": limit}, "free": "shop:free"}


def _most(tmp_path: Path) -> int:
    return max(map(int, (tmp_path / "counts").read_text().split()))


async def test_no_more_tasks_of_a_route_run_at_once_and_others_do_not_wait_for_them(
    tmp_path: Path, new_host: NewHost, router: Router
) -> None:
    for handler in ("limited", "limited_sync"):
        here = tmp_path / handler
        here.mkdir()
        async with _host(new_host, here, 3, handler):
            begun = time.monotonic()
            requests = [await router.send("limited", {"seconds": 0.05}, deadline=25) for _ in range(60)]
            free = [await router.send("free", {}, deadline=25) for _ in range(50)]
            await router.settled(requests + free)
            assert {request.verdict for request in requests + free} == {Verdict.COMPLETE}
            last = max(request.replies[0].at for request in free)
            before = sum(request.replies[0].at < last for request in requests)
            assert before < 60 - 3, "they waited until the last of the others had begun"
            took = max(request.replies[0].at for request in requests) - begun
            assert took >= 60 / 3 * 0.05
            assert _most(here) == 3


async def test_a_limit_is_kept_over_kills_and_reloads_and_no_permit_is_lost(
    tmp_path: Path, new_host: NewHost, enter: Enter, router: Router
) -> None:
    rng = random.Random(7)
    host = await enter(_host(new_host, tmp_path, 2))
    async with router.load("limited", {"seconds": 0.02}, rate=60, deadline=25) as load:
        for number in range(8):
            await load.sent(15)
            slots = host.workers()
            host.kill(rng.choice(sorted(slots)))
            if number == 4:
                assert (await host.reload()).status == 0
            await asyncio.sleep(0)
    report = load.report()
    assert not report.silent, report
    assert report.words.keys() <= {"worker died:"}, report
    assert report.words["worker died:"] <= 8 * 2
    assert _most(tmp_path) <= 2
    await router.settled([await router.send("limited", {"seconds": 0.3}, deadline=10) for _ in range(4)])
    assert _most(tmp_path) == 2, "both permits are there still"


async def test_a_reload_changes_the_limit_and_tasks_of_before_count_for_it(
    tmp_path: Path, new_host: NewHost, enter: Enter, router: Router
) -> None:
    counts = tmp_path / "counts"
    host = await enter(_host(new_host, tmp_path, 3))
    before = [await router.send("limited", {"seconds": 0.8}, deadline=20) for _ in range(6)]
    await host.running(3)
    for limit in (1, 2):
        host.configure(_handlers(limit), SECTIONS)
        assert (await host.reload()).status == 0
        await router.settled(before)
        assert _most(tmp_path) <= 3
        counts.write_text("")
        before = [await router.send("limited", {"seconds": 0.1}, deadline=20) for _ in range(6)]
        await router.settled(before)
        assert _most(tmp_path) == limit
    assert {request.verdict for request in before} == {Verdict.COMPLETE}


async def test_a_limit_is_kept_while_tasks_of_a_killed_supervisors_workers_run(
    tmp_path: Path, new_host: NewHost, enter: Enter, router: Router
) -> None:
    host = await enter(_host(new_host, tmp_path, 2))
    requests = [await router.send("limited", {"seconds": 1.5}, deadline=25) for _ in range(3)]
    await host.running(2)
    host.send_signal(signal.SIGKILL)
    await host.wait()
    await host.restart()
    requests += [await router.send("limited", {"seconds": 0.05}, deadline=25) for _ in range(6)]
    await router.settled(requests)
    assert {request.verdict for request in requests} == {Verdict.COMPLETE}
    assert _most(tmp_path) == 2
