"""Statistics in Prometheus' text format, the only user of its client library.

Labels are few: slots, states, outcomes, the stable words, and the routes of the settings. Names follow
https://prometheus.io/docs/practices/naming/: seconds and bytes, `_total` for what only grows.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from ajhost import __version__
from ajhost.core.host_counters import HostStats
from ajhost.core.route_stats import Histogram, RouteStats
from ajhost.core.status import CATCH_ALL
from ajhost.protocol.reasons import FailureReason

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The format that `generate_latest` writes and that every scraper reads."""
NO_ROUTE = "(none)"
"""The label of requests without a route; no route can be called so."""

_USUAL_END = "ended"
"""Why a connection ends as a rule: counted from 0 on, so that the first one is an increase."""
_BOOTED = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
"""Unix time, taken once: the start time of a process must not change from scrape to scrape."""

_FROM_LEDGERS = {
    "unsigned": (
        "ajhost_requests_unsigned",
        "Requests refused because of their signature, its age or its absence.",
    ),
    "ignored": (
        "ajhost_requests_ignored",
        "Requests neither run nor answered because of their reply subject.",
    ),
    "lent": ("ajhost_requests_queued", "Requests that a busy worker gave to the shared queue."),
    "pulled": ("ajhost_requests_dequeued", "Requests that a worker took from the shared queue."),
    "stuck": ("ajhost_tasks_stuck", "Tasks that did not stop at their deadline."),
}

_REFUSED = frozenset(
    (
        FailureReason.OVERLOADED.value,
        FailureReason.DRAINING.value,
        FailureReason.DEADLINE_EXCEEDED.value,
        FailureReason.BAD_REQUEST.value,
    )
)
_FAILED = frozenset(
    (
        FailureReason.HANDLER_ERROR.value,
        FailureReason.DEADLINE_EXCEEDED.value,
        FailureReason.WORKER_DIED.value,
        FailureReason.DRAINING.value,
    )
)


def exposition(stats: HostStats) -> bytes:
    """The text of a scrape; statistics of the supervisor's own process (`process_*`) are added."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(stats))
    _OwnProcess(registry=registry)
    return generate_latest(registry)


class _OwnProcess(ProcessCollector):
    """The library gives no figure at all without the boot time in /proc/stat, which the unit hides (ProcSubset=pid)."""

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
        build = GaugeMetricFamily(
            "ajhost_build_info", "Always 1; the labels say which version runs.", labels=["version", "python"]
        )
        build.add_metric([__version__, platform.python_version()], 1)
        yield build
        yield GaugeMetricFamily(
            "ajhost_ready", "Whether every slot serves: 1, else 0.", value=float(stats.ready)
        )
        yield GaugeMetricFamily(
            "ajhost_draining",
            "Whether an operator has taken the host out of the queue group (`ajhost drain`): 1, else 0.",
            value=float(stats.draining),
        )
        yield GaugeMetricFamily(
            "ajhost_generation",
            "The generation of settings and code that is wanted.",
            value=stats.generation,
        )
        reloads = CounterMetricFamily("ajhost_reloads", "Reloads by what became of them.", labels=["outcome"])
        for outcome, count in stats.reloads.items():
            reloads.add_metric([outcome], count)
        yield reloads
        faults = CounterMetricFamily(
            "ajhost_supervision_failures",
            "Jobs of the supervisor that failed and were done again.",
            labels=["job"],
        )
        for job, count in stats.faults.items():
            faults.add_metric([job], count)
        yield faults
        yield CounterMetricFamily(
            "ajhost_last_resort",
            "Times the supervisor subscribed because no worker served.",
            value=stats.last_resort,
        )

    def _connections(self) -> Iterator[Metric]:
        connected = GaugeMetricFamily(
            "ajhost_nats_connected",
            "Whether a process of the slot is subscribed at a NATS server (the supervisor: connected): 1, else 0.",
            labels=["slot"],
        )
        why = GaugeMetricFamily(
            "ajhost_nats_disconnected",
            "1 for each slot that is not connected, with the reason.",
            labels=["slot", "reason"],
        )
        reconnects = CounterMetricFamily(
            "ajhost_nats_reconnects",
            "Connections to NATS that were made anew, by the reason for which the one before had ended.",
            labels=["slot", "reason"],
        )
        refused = CounterMetricFamily(
            "ajhost_nats_replies_refused",
            "Answers that the server did not let us publish.",
            labels=["slot"],
        )
        for slot, connection in self._stats.connections.items():
            connected.add_metric([slot], float(connection.connected))
            if not connection.connected:
                why.add_metric([slot, connection.reason or "none"], 1)
            for reason, count in {_USUAL_END: 0, **connection.reconnects}.items():
                reconnects.add_metric([slot, reason], count)
            refused.add_metric([slot], connection.refused_replies)
        yield connected
        yield why
        yield reconnects
        yield refused

    def _workers(self) -> Iterator[Metric]:
        stats = self._stats
        workers = GaugeMetricFamily("ajhost_workers", "Worker processes by state.", labels=["state"])
        for state, count in stats.workers.items():
            workers.add_metric([state], count)
        yield workers
        yield GaugeMetricFamily("ajhost_slots", "Workers that there should be.", value=stats.slots)
        yield CounterMetricFamily(
            "ajhost_worker_deaths", "Workers that ended otherwise than in order.", value=stats.deaths
        )
        yield CounterMetricFamily(
            "ajhost_requests_requeued",
            "Requests taken from workers that died or hung, to run on others.",
            value=stats.requeued,
        )
        yield CounterMetricFamily(
            "ajhost_tasks_answered_for_dead",
            "Started tasks that the supervisor answered because their worker had died.",
            value=stats.answered,
        )
        for key, (name, text) in _FROM_LEDGERS.items():
            yield CounterMetricFamily(name, text, value=stats.counts[key])
        resident = GaugeMetricFamily(
            "ajhost_worker_resident_bytes",
            "Resident memory of the workers of a slot, shared pages included.",
            labels=["slot"],
        )
        for slot, size in sorted(stats.resident.items()):
            resident.add_metric([str(slot)], size)
        yield resident

    def _routes(self) -> Iterator[Metric]:
        routes = {_label(route): stats for route, stats in self._stats.routes.items()}
        yield _by_route(
            "ajhost_requests_received",
            "Requests that the host received from the NATS server: answered, running or waiting.",
            {_label(route): count for route, count in self._stats.received.items()},
        )
        yield _by_reason(
            "ajhost_requests_refused",
            "Requests that were answered with AJ-Error and had not begun, by the first words of the answer.",
            routes,
            lambda stats: stats.refused,
            _REFUSED,
        )
        served = {route: stats for route, stats in routes.items() if route != NO_ROUTE}
        yield _by_route(
            "ajhost_tasks_completed",
            "Tasks whose handler returned a result.",
            {_label(route): count for route, count in self._stats.completed.items() if route is not None},
        )
        yield _by_route(
            "ajhost_tasks_terminated",
            "Tasks that were answered with AJ-Terminate.",
            {_label(route): count for route, count in self._stats.terminated.items() if route is not None},
        )
        yield _by_reason(
            "ajhost_tasks_failed",
            "Tasks that had begun and were answered with AJ-Error, by the first words of the answer.",
            served,
            lambda stats: stats.failed,
            _FAILED,
        )
        yield _histograms(
            "ajhost_task_waiting_seconds",
            "From the receipt of a request to its handler's start.",
            {route: stats.waiting for route, stats in served.items()},
        )
        yield _histograms(
            "ajhost_task_running_seconds",
            "From a handler's start to its answer.",
            {route: stats.running for route, stats in served.items()},
        )
        for name, text, counts in (
            ("ajhost_tasks_running", "Tasks that run now.", self._stats.running),
            ("ajhost_requests_waiting", "Requests that wait for a worker now.", self._stats.waiting),
        ):
            family = GaugeMetricFamily(name, text, labels=["route"])
            for route, count in counts.items():
                family.add_metric([_label(route)], count)
            yield family


def _label(route: str | None) -> str:
    return NO_ROUTE if route is None else route or CATCH_ALL


def _by_route(name: str, text: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=["route"])
    for route, count in counts.items():
        family.add_metric([route], count)
    return family


def _by_reason(
    name: str,
    text: str,
    routes: Mapping[str, RouteStats],
    counts: Callable[[RouteStats], Mapping[str, int]],
    usual: frozenset[str],
) -> Metric:
    """The usual reasons have a sample before they occur: `increase` does not see the first one of a new series."""
    family = CounterMetricFamily(name, text, labels=["route", "reason"])
    for route, stats in routes.items():
        for reason, count in counts(stats).items():
            if count or (reason in usual and route != NO_ROUTE):
                family.add_metric([route, reason], count)
    return family


def _histograms(name: str, text: str, histograms: Mapping[str, Histogram]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=["route"])
    for route, histogram in histograms.items():
        family.add_metric([route], histogram.cumulative(), histogram.total)
    return family
