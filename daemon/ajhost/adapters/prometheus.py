"""Writes statistics in Prometheus' text format: the name, labels and help text of each metric, and which series begin
at 0. The only importer of its client library.

Labels are few: slots, states, outcomes, the stable words, and the routes of the settings. Names follow
https://prometheus.io/docs/practices/naming/: seconds and bytes, `_total` for what only grows.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Container, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from ajhost import __version__
from ajhost.core.host_counters import HostStats
from ajhost.core.route_stats import Histogram
from ajhost.core.status_report import CATCH_ALL
from ajhost.protocol.reasons import FailureReason

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The format that `generate_latest` writes and that every scraper reads."""
NO_ROUTE = "(none)"
"""The label of requests without a route; no route can be called so."""

_USUAL_END = "ended"
"""The usual reason of a connection's end: its series begins at 0, so that the first end is an increase."""
_BOOTED = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
"""The Unix time of the boot, taken once: the start time of a process must not change from scrape to scrape."""

_FROM_LEDGERS = {
    "unsigned": (
        "ajhost_requests_unsigned", "Requests refused because of their signature, its age or its absence.",
    ),
    "ignored": (
        "ajhost_requests_ignored", "Requests neither run nor answered because of their reply subject.",
    ),
    "lent": ("ajhost_requests_queued", "Requests that a busy worker gave to the shared queue."),
    "pulled": ("ajhost_requests_dequeued", "Requests that a worker took from the shared queue."),
    "stuck": ("ajhost_tasks_stuck", "Tasks that did not stop at their deadline."),
}  # fmt: skip

_LATE = (FailureReason.DEADLINE_EXCEEDED, FailureReason.DRAINING)
_REFUSED = frozenset(r.value for r in (FailureReason.OVERLOADED, FailureReason.BAD_REQUEST, *_LATE))
_FAILED = frozenset(r.value for r in (FailureReason.HANDLER_ERROR, FailureReason.WORKER_DIED, *_LATE))


def exposition(stats: HostStats) -> bytes:
    """Returns the text of a scrape, with statistics of the supervisor's own process (`process_*`)."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(stats))
    _OwnProcess(registry=registry)
    return generate_latest(registry)


class _OwnProcess(ProcessCollector):
    """Figures of this process. The library has none if the unit hides the boot time in /proc/stat (ProcSubset=pid)."""

    def _boot_time(self) -> float:
        return _BOOTED


class _Families(Collector):
    def __init__(self, stats: HostStats) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        yield from self._host()
        yield from self._connections()
        yield from self._workers()
        yield from self._routes()

    def _host(self) -> Iterator[Metric]:
        stats = self._stats
        build = (__version__, platform.python_version())
        text = "Always 1; the labels say which version runs."
        yield _gauge("ajhost_build_info", text, [(build, 1)], ("version", "python"))
        yield _gauge("ajhost_ready", "Whether every slot serves: 1, else 0.", stats.ready)
        text = "Whether an operator has taken the host out of the queue group (`ajhost drain`): 1, else 0."
        yield _gauge("ajhost_draining", text, stats.draining)
        yield _gauge("ajhost_generation", "The generation of settings and code that is wanted.", stats.generation)
        yield _counter("ajhost_reloads", "Reloads by what became of them.", _by(stats.reloads), ("outcome",))
        text = "Jobs of the supervisor that failed and were done again."
        yield _counter("ajhost_supervision_failures", text, _by(stats.faults), ("job",))
        text = "Times the supervisor subscribed because no worker served."
        yield _counter("ajhost_last_resort", text, stats.last_resort)

    def _connections(self) -> Iterator[Metric]:
        connections = self._stats.connections.items()
        text = "Whether a process of the slot is subscribed at a NATS server (the supervisor: connected): 1, else 0."
        connected = (((slot,), float(c.connected)) for slot, c in connections)
        yield _gauge("ajhost_nats_connected", text, connected, ("slot",))
        text = "1 for each slot that is not connected, with the reason."
        why = (((slot, c.reason or "none"), 1) for slot, c in connections if not c.connected)
        yield _gauge("ajhost_nats_disconnected", text, why, ("slot", "reason"))
        text = "Connections to NATS that were made anew, by the reason for which the one before had ended."
        reconnects = (
            ((slot, reason), count)
            for slot, c in connections
            for reason, count in {_USUAL_END: 0, **c.reconnects}.items()
        )
        yield _counter("ajhost_nats_reconnects", text, reconnects, ("slot", "reason"))
        text = "Answers that the server did not let us publish."
        refused = (((slot,), c.refused_replies) for slot, c in connections)
        yield _counter("ajhost_nats_replies_refused", text, refused, ("slot",))

    def _workers(self) -> Iterator[Metric]:
        stats = self._stats
        yield _gauge("ajhost_workers", "Worker processes by state.", _by(stats.workers), ("state",))
        yield _gauge("ajhost_slots", "Workers that there should be.", stats.slots)
        yield _counter("ajhost_worker_deaths", "Workers that ended otherwise than in order.", stats.deaths)
        text = "Workers that were replaced in order: for their memory, a stuck thread, max_tasks, by an operator."
        yield _counter("ajhost_workers_replaced", text, stats.replaced)
        text = "Requests taken from workers that died or hung, to run on others."
        yield _counter("ajhost_requests_requeued", text, stats.requeued)
        text = "Started tasks that the supervisor answered because their worker had died."
        yield _counter("ajhost_tasks_answered_for_dead", text, stats.answered)
        for key, (name, text) in _FROM_LEDGERS.items():
            yield _counter(name, text, stats.counts[key])
        text = "Resident memory of the workers of a slot, shared pages included."
        resident = (((str(slot),), size) for slot, size in sorted(stats.resident.items()))
        yield _gauge("ajhost_worker_resident_bytes", text, resident, ("slot",))

    def _routes(self) -> Iterator[Metric]:
        stats = self._stats
        routes = {_label(route): of_route for route, of_route in stats.routes.items()}
        served = {route: of_route for route, of_route in routes.items() if route != NO_ROUTE}
        text = "Requests that the host received from the NATS server: answered, running or waiting."
        yield _counter("ajhost_requests_received", text, _by_route(stats.received), ("route",))
        text = "Requests that were answered with AJ-Error and had not begun, by the first words of the answer."
        refused = {route: of_route.refused for route, of_route in routes.items()}
        yield _counter("ajhost_requests_refused", text, _by_reason(refused, _REFUSED), ("route", "reason"))
        text = "Tasks whose handler returned a result."
        yield _counter("ajhost_tasks_completed", text, _by_route(stats.completed, served), ("route",))
        text = "Tasks that were answered with AJ-Terminate."
        yield _counter("ajhost_tasks_terminated", text, _by_route(stats.terminated, served), ("route",))
        text = "Tasks that had begun and were answered with AJ-Error, by the first words of the answer."
        failed = {route: of_route.failed for route, of_route in served.items()}
        yield _counter("ajhost_tasks_failed", text, _by_reason(failed, _FAILED), ("route", "reason"))
        waiting = {route: of_route.waiting for route, of_route in served.items()}
        running = {route: of_route.running for route, of_route in served.items()}
        text = "From the receipt of a request to its handler's start."
        yield _histograms("ajhost_task_waiting_seconds", text, waiting)
        yield _histograms("ajhost_task_running_seconds", "From a handler's start to its answer.", running)
        yield _gauge("ajhost_tasks_running", "Tasks that run now.", _by_route(stats.running), ("route",))
        text = "Requests that wait for a worker now."
        yield _gauge("ajhost_requests_waiting", text, _by_route(stats.waiting), ("route",))


Samples = Iterable[tuple[tuple[str, ...], float]]
"""Values by the labels' values."""


def _gauge(name: str, text: str, values: float | Samples, labels: tuple[str, ...] = ()) -> Metric:
    return _filled(GaugeMetricFamily(name, text, labels=labels), values)


def _counter(name: str, text: str, values: float | Samples, labels: tuple[str, ...] = ()) -> Metric:
    return _filled(CounterMetricFamily(name, text, labels=labels), values)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, values: float | Samples) -> Metric:
    for labels, value in [((), values)] if isinstance(values, int | float) else values:
        family.add_metric(labels, value)
    return family


def _by(counts: Mapping[str, int]) -> Samples:
    return (((label,), count) for label, count in counts.items())


def _by_route(counts: Mapping[str | None, int], among: Container[str] | None = None) -> Samples:
    """Returns samples by route, of all routes or of those `among`."""
    labelled = {_label(route): count for route, count in counts.items()}
    return _by({route: count for route, count in labelled.items() if among is None or route in among})


def _by_reason(counts: Mapping[str, Mapping[str, int]], usual: frozenset[str]) -> Samples:
    """Yields samples, of the usual reasons before they occur: `increase` does not see the first of a new series."""
    for route, by_reason in counts.items():
        for reason, count in by_reason.items():
            if count or (reason in usual and route != NO_ROUTE):
                yield (route, reason), count


def _label(route: str | None) -> str:
    return NO_ROUTE if route is None else route or CATCH_ALL


def _histograms(name: str, text: str, histograms: Mapping[str, Histogram]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=["route"])
    for route, histogram in histograms.items():
        family.add_metric([route], histogram.cumulative(), histogram.total)
    return family
