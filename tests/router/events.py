"""What a router tells the world about its tasks: the events of asyncjobs on `CHORIA_AJ.E.task_state.*`."""

from __future__ import annotations

import json
from types import TracebackType
from typing import Any, Self

from nats.aio.client import Client

from tests.support.nats import round_trip


class TaskEvents:
    """The state changes of all tasks since the block began."""

    def __init__(self, url: str, **options: Any) -> None:
        """`options`: of the client."""
        self._url, self._options = url, options
        self._client = Client()

    async def __aenter__(self) -> Self:
        await self._client.connect(self._url, **self._options)
        self._events = await self._client.subscribe("CHORIA_AJ.E.task_state.*")
        await round_trip(self._client)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    async def until(self, *states: str, timeout: float = 60.0) -> dict[str, Any]:
        """The next event of a task that comes into one of `states`: `task_id`, `state`, `tries`, `last_error`."""
        while True:
            event: dict[str, Any] = json.loads((await self._events.next_msg(timeout)).data)
            if event["state"] in states:
                return event
