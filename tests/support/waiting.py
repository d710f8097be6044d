"""Waiting for what others do and nobody tells."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

LIMIT = 60.0


async def until(condition: Callable[[], object], limit: float = LIMIT) -> None:
    """Waits until something that others do is so."""
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, "it never comes to be"
        await asyncio.sleep(0.001)
