"""What of a worker's threads is waited for at its end."""

from __future__ import annotations

import asyncio
import logging
import queue
import sysconfig
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ajhost.roles.worker.left_running import LeftRunning

LIBRARY = """
def work(jobs):
    while jobs.get() is not None:
        pass
"""


async def anyios() -> Callable[[], object]:
    """anyio stops its threads when the loop's main task has ended, which is a worker's last act."""
    await pytest.importorskip("anyio.to_thread").run_sync(int)
    return int


async def of_concurrent_futures() -> Callable[[], object]:
    pool = ThreadPoolExecutor(1)
    pool.submit(int).result()
    return lambda: pool.shutdown(wait=False)


async def of_a_connection() -> Callable[[], object]:
    names: dict[str, Any] = {}
    exec(compile(LIBRARY, f"{sysconfig.get_path('purelib')}/aiosqlite/core.py", "exec"), names)
    jobs: queue.SimpleQueue[object] = queue.SimpleQueue()
    threading.Thread(target=names["work"], args=(jobs,)).start()
    return lambda: jobs.put(None)


@pytest.mark.parametrize("start", [anyios, of_concurrent_futures, of_a_connection])
async def test_a_librarys_thread_that_waits_for_work_is_no_work_that_was_left(
    start: Callable[[], Awaitable[Callable[[], object]]],
) -> None:
    loop = asyncio.get_running_loop()
    left_running = LeftRunning(loop)
    before = set(threading.enumerate())
    stop = await start()
    try:
        assert set(threading.enumerate()) - before  # others may end meanwhile
        async with asyncio.timeout(30):
            await left_running.wait(loop.time() + 60, asyncio.Event())
    finally:
        stop()


async def test_a_thread_of_the_applications_that_waits_for_work_is_waited_for_and_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop = asyncio.get_running_loop()
    left_running = LeftRunning(loop)
    jobs: queue.Queue[None] = queue.Queue()
    thread = threading.Thread(target=lambda: jobs.get(), name="consumer")
    thread.start()
    try:
        with caplog.at_level(logging.WARNING, "ajhost.worker"):
            await left_running.wait(loop.time() + 0.2, asyncio.Event())
        assert "1 threads of handlers are cut: consumer" in caplog.text
    finally:
        jobs.put(None)
        thread.join()
