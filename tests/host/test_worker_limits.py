"""Limits of workers: what can wait waits, and a worker that is to serve so many tasks serves no more."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.support.factories import StartHost
from tests.support.router import CONTENT_TYPE, Router, Verdict, subject_of, task_json
from tests.support.sweep import sweep


async def test_a_thousand_tasks_at_once_wait_for_two_workers(start_host: StartHost, router: Router) -> None:
    await start_host(handlers={"work": "work"})
    requests = [await router.send("work", {"sleep_ms": 10}, deadline=20) for _ in range(1000)]
    await router.settled(requests)
    assert Counter(request.verdict for request in requests) == {Verdict.COMPLETE: 1000}


@pytest.mark.parametrize(("limit", "count"), sweep([(1, 1), (1, 2), (3, 2), (50, 2)], (3, 2)))
async def test_a_worker_serves_exactly_as_many_tasks_as_it_may(
    tmp_path: Path, start_host: StartHost, router: Router, limit: int, count: int
) -> None:
    record = tmp_path / "runs"
    tasks = 20 * limit if limit < 50 else 500
    host = await start_host(handlers={"work": "work"}, sections={"workers": {"count": count, "max_tasks": limit}})
    requests = [await router.send("work", {"record": str(record), "sleep_ms": 1}, deadline=25) for _ in range(tasks)]
    await router.settled(requests)
    assert Counter(request.verdict for request in requests) == {Verdict.COMPLETE: tasks}, host.log_text()
    served = Counter(line.split()[1] for line in record.read_text().splitlines())
    assert max(served.values()) <= limit
    assert sum(served.values()) == tasks


async def test_a_request_without_a_deadline_has_the_hosts_own_and_its_answer_says_so(
    start_host: StartHost, router: Router
) -> None:
    sections = {"workers": {"count": 1, "default_timeout": 0.3}}
    host = await start_host(handlers={"work": "work"}, sections=sections)
    payload, id = {"sleep_ms": 30_000}, "by-hand"
    headers = {"AJ-Content-Type": CONTENT_TYPE}
    without = await router.send_raw(subject_of("work"), task_json("work", payload, id=id), headers, id=id)
    with_one = await router.send("work", payload, deadline=2)
    text = (await router.reply(without)).text
    assert text.endswith("(workers.default_timeout, as the request has no deadline)")
    assert text.partition(": ")[2] in (await host.command("attempts", id)).stdout
    assert (await router.reply(with_one)).text.endswith("(the task's deadline)")
