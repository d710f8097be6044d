"""A route as a worker serves it: how many of its tasks may run here (`concurrency`), and by which permits of the whole
host (`host_concurrency`, `adapters/linux/host_permits.py`). `intake.py` and the queue's consumer keep both.
"""

from __future__ import annotations

from collections.abc import Mapping

from ajhost.adapters.linux.host_permits import PermitFile, Permits
from ajhost.roles.handlers import LoadedHandler
from ajhost.roles.messages import GenerationSpec
from ajhost.roles.shared_queue.token_queues import queue_of

_FILE = "permits"
_NO_LIMIT = 1 << 62


class Route:
    """A handler as this worker runs it: how many of its tasks are running here, and where they wait otherwise."""

    __slots__ = ("busy", "handler", "index", "limit", "permits", "queue")

    def __init__(self, index: int, handler: LoadedHandler, queue: str, permits: Permits | None = None) -> None:
        """`permits`: those of the whole host, of which each task has one while it runs."""
        self.index = index
        self.handler = handler
        self.queue = queue
        self.limit = _NO_LIMIT if handler.concurrency is None else handler.concurrency
        self.permits = permits
        self.busy = 0

    def has_room(self) -> bool:
        """Whether one more of its tasks may run in this worker, as far as `concurrency` goes."""
        return self.busy < self.limit


def make_routes(spec: GenerationSpec, handlers: Mapping[str, LoadedHandler]) -> tuple[list[Route], dict[str, Permits]]:
    """Returns the routes in the configured order, and permits by the queue in which their requests wait."""
    limits = {h.route: h.host_concurrency for h in spec.handlers if h.host_concurrency is not None}
    file = PermitFile(spec.runtime / _FILE) if limits else None
    permits: dict[str, Permits] = {}
    routes = []
    for index, settings in enumerate(spec.handlers):
        queue = queue_of(settings)
        if file is not None and settings.route in limits:
            permits[queue] = file.of(settings.route, limits[settings.route])
        routes.append(Route(index, handlers[settings.route], queue, permits.get(queue)))
    return routes, permits
