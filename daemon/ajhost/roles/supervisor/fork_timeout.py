"""How long the supervisor waits for a template that is to fork."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from ajhost.adapters.linux import processes
from ajhost.core.timings import FORK_LIMIT, FORK_STOPPED_INTERVAL

_T = TypeVar("_T")
_STOPPED = "T"
"""The letter of proc(5) for a process that a signal has stopped."""


async def fork_answer(forked: asyncio.Future[_T], template: int) -> _T:
    """The template's answer to a fork order; `template` is its pid.

    A fork of a large application is slow, so it has `FORK_LIMIT`. A template that is stopped does not fork at all.

    :raises TimeoutError: when it is given up; the text says why.
    """
    loop, was_stopped = asyncio.get_running_loop(), False
    end = loop.time() + FORK_LIMIT
    while loop.time() < end:
        await asyncio.wait((forked,), timeout=FORK_STOPPED_INTERVAL)
        if forked.done():
            return forked.result()
        stopped = processes.state_of(template) == _STOPPED
        if stopped and was_stopped:
            raise TimeoutError("the template does not fork: somebody has stopped it (SIGSTOP)")
        was_stopped = stopped
    raise TimeoutError(f"the template did not fork within {FORK_LIMIT:g} s")
