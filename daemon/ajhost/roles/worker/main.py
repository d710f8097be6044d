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
from ajhost.adapters.linux.channel import Channel
from ajhost.adapters.linux.ledger_file import LockedLedger, MappedLedger
from ajhost.core.restart_window import RestartWindow
from ajhost.ledger.layout import Word
from ajhost.roles.handlers import LoadedHandler
from ajhost.roles.shared_queue.queue import TokenQueue
from ajhost.roles.specs import GenerationSpec, WorkerSpec
from ajhost.roles.worker.worker import Worker, stacks_on_signal

_GC_THRESHOLDS = (20_000, 20, 20)


def run(
    spec: GenerationSpec,
    worker_spec: WorkerSpec,
    handlers: Mapping[str, LoadedHandler],
    channel: socket.socket,
    queues: Sequence[tuple[str, socket.socket, socket.socket]],
) -> int:
    """Runs a worker and returns its exit status. Called in the forked process, with all signals blocked."""
    logs.configure(spec.log.level, "worker", worker_spec.slot, worker_spec.generation)
    stacks_on_signal()
    for ignored in (signal.SIGINT, signal.SIGHUP):
        # a terminal's Ctrl-C and a reload are meant for the supervisor
        # a function that does nothing: children of handlers would inherit SIG_IGN through exec
        signal.signal(ignored, lambda *_: None)
    # a task makes some 20 objects that the collector looks at and that reference counting frees: with the default of
    # 700 it ran every 35 tasks and cost a fifth of the CPU
    gc.set_threshold(*_GC_THRESHOLDS)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    ledger = LockedLedger(spec.runtime / "ledger", worker_spec.serial)
    ledger.words[Word.PID] = os.getpid()
    restart_window = RestartWindow(MappedLedger(spec.runtime / "ledger", worker_spec.supervisor))
    shared = [TokenQueue(name, receive, send) for name, receive, send in queues]

    async def serve() -> int:
        status = await Worker(
            spec, worker_spec, handlers, Channel(channel), shared, ledger, restart_window
        ).run()
        # here and not after the loop has been closed: that would wait for tasks that swallow their cancellation
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)

    return uvloop.run(serve())
