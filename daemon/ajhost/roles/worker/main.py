"""A worker process from its fork to its end."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence

import uvloop

from ajhost.adapters import logs
from ajhost.adapters.channel import Channel
from ajhost.adapters.ledger_file import MappedLedger, OwnedLedger
from ajhost.core.layout import Word
from ajhost.core.requesters import Requesters
from ajhost.roles.handlers import LoadedHandler
from ajhost.roles.plan import GenerationPlan, WorkerOrder
from ajhost.roles.shared_queue.lane import Lane
from ajhost.roles.worker.worker import Worker, stacks_on_signal

_GC_THRESHOLDS = (20_000, 20, 20)


def run(
    plan: GenerationPlan,
    order: WorkerOrder,
    handlers: Mapping[str, LoadedHandler],
    channel: socket.socket,
    lanes: Sequence[tuple[str, socket.socket, socket.socket]],
) -> int:
    """Runs a worker and returns its exit status. Called in the forked process, with all signals blocked."""
    logs.configure(plan.log.level, "worker", order.slot, order.generation)
    stacks_on_signal()
    for ignored in (signal.SIGINT, signal.SIGHUP):
        # a terminal's Ctrl-C and a reload are meant for the supervisor
        # a function that does nothing: children of handlers would inherit SIG_IGN through exec
        signal.signal(ignored, lambda *_: None)
    # a task makes some 20 objects that the collector looks at and that reference counting frees: with the default of
    # 700 it ran every 35 tasks and cost a fifth of the CPU
    gc.set_threshold(*_GC_THRESHOLDS)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    ledger = OwnedLedger(plan.runtime / "ledger", order.serial)
    ledger.words[Word.PID] = os.getpid()
    requesters = Requesters(MappedLedger(plan.runtime / "ledger", order.supervisor))
    shared = [Lane(name, receive, send) for name, receive, send in lanes]

    async def serve() -> int:
        status = await Worker(plan, order, handlers, Channel(channel), shared, ledger, requesters).run()
        # here and not after the loop has been closed: that would wait for tasks that swallow their cancellation
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)

    return uvloop.run(serve())
