"""A worker process from its fork to its end: sets up its log, signals, channel, ledger and loop for `worker.py`."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from typing import NoReturn

import uvloop

from ajhost.adapters.linux import ledger_file, memory
from ajhost.adapters.linux.channel import Channel
from ajhost.adapters.linux.descriptors import socket_moved_far
from ajhost.adapters.linux.ledger_file import LockedLedger, MappedLedger
from ajhost.adapters.logs import log_outputs
from ajhost.ledger.layout import Word
from ajhost.roles.handlers import LoadedHandler
from ajhost.roles.messages import GenerationSpec, StacksFile, WorkerSpec, encode
from ajhost.roles.shared_queue.token_queues import TokenQueue
from ajhost.roles.worker import signals
from ajhost.roles.worker.composition import WorkerParts
from ajhost.roles.worker.exit import fail, finish
from ajhost.roles.worker.worker import Worker


def run(
    spec: GenerationSpec,
    worker_spec: WorkerSpec,
    handlers: Mapping[str, LoadedHandler],
    channel: socket.socket,
    queues: Sequence[tuple[str, socket.socket, socket.socket]],
) -> NoReturn:
    """Runs a worker to its end. Called in the forked process, with all signals blocked."""
    log_outputs.configure(spec.log, "worker", worker_spec.slot, worker_spec.generation)
    stacks = signals.prepare()
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    if worker_spec.supervisor_place:
        ledger_file.also_at(worker_spec.supervisor, worker_spec.supervisor_place)
    ledger = LockedLedger(spec.runtime / "ledger", worker_spec.serial)
    ledger.words[Word.PID] = os.getpid()
    supervisor = MappedLedger(spec.runtime / "ledger", worker_spec.supervisor)
    to_supervisor = Channel(socket_moved_far(channel))
    if stacks >= 0:
        to_supervisor.send(encode(StacksFile()), [stacks])
    shared = [TokenQueue(name, socket_moved_far(receive), socket_moved_far(send)) for name, receive, send in queues]

    async def serve() -> NoReturn:
        parts = WorkerParts(spec, worker_spec, handlers, shared, to_supervisor, ledger, supervisor)
        worker = Worker(parts, worker_spec)
        status = await worker.run()
        # not after the loop was closed: that would wait for tasks that swallow their cancellation
        finish(status, worker.heartbeat.from_thread)

    # not `uvloop.run`, which waits for every task before it lets an exception out
    loop = uvloop.new_event_loop()
    # uvloop's receive buffer of 256 kB, which only connections of handlers use
    memory.release_zero_pages(id(loop), uvloop.Loop.__basicsize__)
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(serve())
    except BaseException as error:
        fail(error, "the worker cannot go on")
