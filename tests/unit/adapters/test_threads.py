"""Calls that threads have made on the loop: each once, in order, whatever becomes of others and of the loop."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import Callable

import pytest
import uvloop

from ajhost.adapters.threads import ThreadCalls

THREADS, EACH = 8, 1000


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


def _directly(work: Callable[[], None]) -> None:
    work()


def _descriptors() -> set[str]:
    return {d for d in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{d}")}


async def test_each_call_is_made_once_on_the_loop_in_the_order_of_its_thread() -> None:
    made: list[tuple[int, int]] = []
    here, all_made, batches = threading.get_ident(), asyncio.Event(), 0

    def note(thread: int, number: int) -> None:
        assert threading.get_ident() == here
        made.append((thread, number))
        if len(made) == THREADS * EACH:
            all_made.set()

    def at_once(work: Callable[[], None]) -> None:
        nonlocal batches
        batches += 1
        work()

    calls = ThreadCalls(asyncio.get_running_loop(), at_once)

    def post(thread: int) -> None:
        for number in range(EACH):
            calls.post(note, thread, number)

    threads = [threading.Thread(target=post, args=(n,)) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    async with asyncio.timeout(30):
        await all_made.wait()
    for thread in threads:
        thread.join()
    for n in range(THREADS):
        assert [number for thread, number in made if thread == n] == list(range(EACH))
    assert 1 <= batches <= THREADS * EACH


async def test_a_call_that_fails_is_told_of_and_costs_no_other() -> None:
    loop, told, done = asyncio.get_running_loop(), [], asyncio.Event()
    loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
    calls = ThreadCalls(loop, _directly)

    def fail() -> None:
        raise LookupError("mine")

    def post() -> None:
        calls.post(fail)
        calls.post(done.set)

    thread = threading.Thread(target=post)
    thread.start()
    async with asyncio.timeout(10):
        await done.wait()
    thread.join()
    assert [str(error) for error in told] == ["mine"]


@pytest.mark.parametrize("new_loop", [uvloop.new_event_loop, asyncio.new_event_loop])
def test_what_is_posted_to_a_closed_loop_is_in_vain_and_reaches_nobody_else(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    loop = new_loop()
    before = _descriptors()
    calls = ThreadCalls(loop, _directly)
    (descriptor,) = _descriptors() - before
    loop.close()
    reader, writer = os.pipe()  # would have the number of a descriptor that was closed too early
    try:
        os.set_blocking(reader, False)
        calls.post(pytest.fail, "called")
        with pytest.raises(BlockingIOError):
            os.read(reader, 8)
    finally:
        os.close(reader)
        os.close(writer)
    del loop, calls
    gc.collect()
    assert descriptor not in _descriptors()
