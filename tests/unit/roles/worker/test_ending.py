"""What of a worker's threads is waited for at its end."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading

import pytest

from ajhost.roles.worker.ending import Background


async def test_a_librarys_thread_that_waits_for_work_is_no_work_that_was_left() -> None:
    """anyio stops its threads when the loop's main task has ended, which is a worker's last act."""
    to_thread = pytest.importorskip("anyio.to_thread")
    loop = asyncio.get_running_loop()
    background = Background(loop)
    await to_thread.run_sync(int)
    assert any(thread.name.startswith("AnyIO") for thread in threading.enumerate())
    end = loop.time() + 60
    async with asyncio.timeout(30):
        await background.wait(end, asyncio.Event())


async def test_a_thread_of_the_applications_that_waits_for_work_is_waited_for_and_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop = asyncio.get_running_loop()
    background = Background(loop)
    jobs: queue.Queue[None] = queue.Queue()
    thread = threading.Thread(target=lambda: jobs.get(), name="consumer")
    thread.start()
    try:
        with caplog.at_level(logging.WARNING, "ajhost.worker"):
            await background.wait(loop.time() + 0.2, asyncio.Event())
        assert "1 threads of handlers are cut: consumer" in caplog.text
    finally:
        jobs.put(None)
        thread.join()
