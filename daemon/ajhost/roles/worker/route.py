"""The routes of a worker, with the permits of those that have a limit of the whole host."""

from __future__ import annotations

from collections.abc import Mapping

from ajhost.adapters.linux.permits import PermitFile, Permits
from ajhost.roles.handlers import LoadedHandler
from ajhost.roles.process_specs import GenerationSpec
from ajhost.roles.shared_queue.token_queues import queue_of
from ajhost.roles.worker.request import Route

_FILE = "permits"


def make_routes(
    spec: GenerationSpec, handlers: Mapping[str, LoadedHandler]
) -> tuple[list[Route], dict[str, Permits]]:
    """The routes in the configured order; permits by the queue in which their requests wait."""
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
