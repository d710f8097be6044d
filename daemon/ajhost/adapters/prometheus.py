"""Figures in Prometheus' text format, the only user of its client library. No label but slot, state and outcome."""

from __future__ import annotations

import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ajhost.core.stats import HostStats

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The format that `generate_latest` writes and that every scraper reads."""

_BOOTED = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
"""Unix time, taken once: the start time of a process must not change from scrape to scrape."""

_FROM_LEDGERS = {
    "received": ("ajhost_requests_received", "Requests that workers received from the NATS server."),
    "completed": ("ajhost_tasks_completed", "Tasks whose handler returned a result."),
    "failed": ("ajhost_tasks_failed", "Tasks that a worker answered with AJ-Error after they had started."),
    "terminated": ("ajhost_tasks_terminated", "Tasks that a worker answered with AJ-Terminate."),
    "refused": ("ajhost_requests_refused", "Requests that a worker answered with an error without a start."),
    "lent": ("ajhost_requests_queued", "Requests that a busy worker gave to the shared queue."),
    "pulled": ("ajhost_requests_dequeued", "Requests that a worker took from the shared queue."),
    "unsigned": (
        "ajhost_requests_unsigned",
        "Requests refused because of their signature, its age or its absence.",
    ),
    "ignored": (
        "ajhost_requests_ignored",
        "Requests neither run nor answered because of their reply subject.",
    ),
    "stuck": ("ajhost_tasks_stuck", "Tasks that did not stop at their deadline."),
}


def exposition(stats: HostStats) -> bytes:
    """The text of a scrape; figures of the supervisor's own process (`process_*`) are added."""
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
        stats = self._stats
        for key, (name, text) in _FROM_LEDGERS.items():
            yield CounterMetricFamily(name, text, value=stats.counts[key])
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
        yield CounterMetricFamily(
            "ajhost_last_resort",
            "Times the supervisor subscribed because no worker served.",
            value=stats.last_resort,
        )
        reloads = CounterMetricFamily("ajhost_reloads", "Reloads by what became of them.", labels=["outcome"])
        for outcome, count in stats.reloads.items():
            reloads.add_metric([outcome], count)
        yield reloads
        workers = GaugeMetricFamily("ajhost_workers", "Worker processes by state.", labels=["state"])
        for state, count in stats.workers.items():
            workers.add_metric([state], count)
        yield workers
        yield GaugeMetricFamily("ajhost_slots", "Workers that there should be.", value=stats.slots)
        yield GaugeMetricFamily("ajhost_tasks_running", "Tasks that run now.", value=stats.running)
        yield GaugeMetricFamily(
            "ajhost_requests_waiting", "Requests that wait for a worker now.", value=stats.waiting
        )
        yield GaugeMetricFamily(
            "ajhost_generation",
            "The generation of settings and code that is wanted.",
            value=stats.generation,
        )
        resident = GaugeMetricFamily(
            "ajhost_worker_resident_bytes",
            "Resident memory of the workers of a slot, shared pages included.",
            labels=["slot"],
        )
        for slot, size in sorted(stats.resident.items()):
            resident.add_metric([str(slot)], size)
        yield resident
