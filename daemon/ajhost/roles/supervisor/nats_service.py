"""Answers `nats micro ls|info|stats|ping` for the host as a NATS service, in the supervisor and without its workers;
not while no worker serves. However many ask, it makes five answers a second of each kind at most.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ajhost import __version__
from ajhost.adapters.linux.stats_files import DIRECTORY, read_all
from ajhost.core.route_stats import RouteStats, clip
from ajhost.core.timings import SERVICE_ANSWER_KEPT
from ajhost.core.untrusted_values import LARGEST
from ajhost.protocol.service_api import Service, ServiceEndpoint, Verb, answer, subjects, verb_of
from ajhost.protocol.subjects import subjects_of
from ajhost.protocol.timestamps import render
from ajhost.roles.handlers import HandlerDescription


class ServiceResponder:
    """The service. `serves`: whether any worker is in the queue group; otherwise there is no answer.

    `loaded` returns the descriptions of the handlers that are in service.
    """

    def __init__(
        self, runtime: Path, serial: int, serves: Callable[[], bool], loaded: Callable[[], Sequence[HandlerDescription]]
    ) -> None:
        self._runtime, self._serves, self._loaded = runtime, serves, loaded
        host = socket.gethostname()
        self._service = Service(
            name="ajhost",
            id=f"{serial:x}",
            version=__version__,
            description="Python handlers for Choria AsyncJobs",
            started=render(time.time_ns()),
            metadata=(("host", host), ("runtime", str(runtime))),
        )
        self._routes: Sequence[str] = ()
        self._group = ""
        self._kept: dict[Verb, tuple[float, bytes]] = {}
        """By verb, an answer and until when it is used again: requesters decide how often they ask."""

    @property
    def subjects(self) -> tuple[str, ...]:
        """The subjects to subscribe to, without a queue group."""
        return subjects(self._service)

    def use_routes(self, routes: Sequence[str], group: str) -> None:
        self._routes, self._group = routes, group
        self._kept.clear()

    def answer(self, subject: str) -> bytes | None:
        """Returns the answer to a message on a subject; None if that is no such question, or no worker serves."""
        verb = verb_of(subject)
        if verb is None or not self._serves():
            return None
        now = time.monotonic()
        until, body = self._kept.get(verb, (0.0, b""))
        if now >= until:
            body = answer(verb, self._service, self._endpoints())
            self._kept[verb] = now + SERVICE_ANSWER_KEPT, body
        return body

    def _endpoints(self) -> list[ServiceEndpoint]:
        counted = read_all(self._runtime / DIRECTORY)
        payloads = {h.route: (("payload", h.payload), ("schema", h.schema)) for h in self._loaded()}
        return [
            self._endpoint(route, counted.get(clip(route), RouteStats()), payloads.get(route, ()))
            for route in self._routes
        ]

    def _endpoint(self, route: str, stats: RouteStats, payload: Sequence[tuple[str, str]]) -> ServiceEndpoint:
        failed = {reason: count for reason, count in stats.failed.items() if count}
        refused = {reason: count for reason, count in stats.refused.items() if count}
        last = max(failed | refused, key=lambda reason: failed.get(reason, 0) + refused.get(reason, 0), default="")
        return ServiceEndpoint(
            route=route,
            subject=subjects_of(route)[0],
            queue_group=self._group,
            requests=stats.answered,
            errors=sum(failed.values()) + sum(refused.values()) + stats.terminated,
            processing_ns=min(int(stats.running.total * 1e9), LARGEST),
            last_error=f"most often: {last}" if last else "",
            metadata=tuple((name, text) for name, text in payload if text),
        )
