"""The template process: imports the handlers once, then forks a worker at each `ForkOrder`. No event loop, no threads.

A worker is forked twice. The middle process sends the worker's pidfd to the supervisor and ends. The kernel then makes
the worker a child of the supervisor, its subreaper (prctl(2)), so that it outlives the template.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import gc
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from ajhost.adapters.linux import os_error_texts, processes, stray_processes
from ajhost.adapters.linux.channel import Channel, ChannelClosed
from ajhost.adapters.linux.standard_streams import flush_streams
from ajhost.adapters.linux.stray_processes import GENERATION_MARK
from ajhost.adapters.logs import log_outputs
from ajhost.adapters.nats.tls import own_trust
from ajhost.protocol.safe_text import clean
from ajhost.protocol.subjects import reply_subjects
from ajhost.roles import messages
from ajhost.roles.handlers import LoadedHandler, LoadFailed, describe, load_handlers
from ajhost.roles.messages import GenerationSpec, WorkerSpec, encode
from ajhost.roles.template import copy_on_write
from ajhost.roles.template.import_cleanup import ImportCleanup
from ajhost.roles.template.import_effects import ImportEffect, ImportWatch
from ajhost.roles.template.random_generators import RandomGenerators

Queues = Sequence[tuple[str, socket.socket, socket.socket]]
"""Name, receiving end and sending end of each queue."""
Run = Callable[
    [GenerationSpec, WorkerSpec, Mapping[str, LoadedHandler], socket.socket, Queues],
    int,
]
"""The main function of a worker. It is called with all signals blocked, and returns the exit status."""

_STDERR = 2
_FAILED = 1
_TOLD = 3
"""The exit status of the middle process after it has reported the reason itself."""
_OURS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(channel: int, stacks: int, parent: int, run: Run) -> NoReturn:
    """Serves the supervisor until it closes the channel or dies.

    :param channel: the descriptor of the socket to the supervisor.
    :param stacks: the descriptor to which faulthandler writes at a crash or a hang of the imports.
    :param parent: the pid of the supervisor.
    :param run: the main function of workers.
    """
    processes.set_title("ajhost: template")
    processes.die_with_parent(parent)
    status, cleanup = _FAILED, ImportCleanup()
    try:
        # kept: sockets that are not closed may be a warning, and the kernel closes them
        _kept = _serve(Channel(socket.socket(fileno=channel)), stacks, run, cleanup)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        cleanup.run()
        flush_streams()
        os._exit(status)


def _serve(channel: Channel, stacks: int, run: Run, cleanup: ImportCleanup) -> _Template | None:
    received = channel.receive_wait(None)
    assert received is not None
    order = messages.FOR_TEMPLATE.decode(received[0])
    assert isinstance(order, messages.LoadOrder)
    spec = order.spec
    # before the imports, so that their log records are formatted; what they configure themselves stays
    log_outputs.configure(spec.log, "template", None, spec.generation)
    # resolved, so that this generation goes on with its release when a symbolic link is set to the next one
    sys.path[:0] = [os.path.realpath(entry) for entry in spec.python.path]
    handlers: dict[str, LoadedHandler] | None = None
    generators = RandomGenerators()
    effects: list[ImportEffect] = []
    try:
        stray_processes.mark(GENERATION_MARK + spec.generation)  # what imports start ends with the generation
        if spec.python.preload:
            watch = ImportWatch()
            with cleanup.collecting(), generators.collecting():
                handlers = load_handlers(spec.handlers, spec.python)
                watch.stop_timers()
            gc.collect()  # closes descriptors of unreachable objects, which are not reported then
            effects = watch.effects(stacks)
    except LoadFailed as failed:
        channel.send(encode(messages.LoadProblems(tuple(failed.problems))))
        return None
    finally:
        faulthandler.cancel_dump_traceback_later()
        faulthandler.unregister(processes.STACKS_OF_IMPORTS)
        faulthandler.enable(file=_STDERR)
        os.close(stacks)
    _undo_signals_of_imports()
    _fill_caches(spec)
    loaded = [] if handlers is None else describe(handlers, schemas=spec.schemas)
    copy_on_write.prepare()
    trust = own_trust() if spec.tell_trust else None
    channel.send(encode(messages.HandlersLoaded(tuple(loaded), tuple(effects), trust)))
    template = _Template(channel, spec, handlers, generators, run)
    with contextlib.suppress(ChannelClosed):
        while True:
            template.obey()
    return template


def _fill_caches(spec: GenerationSpec) -> None:
    """Fills caches that each worker would fill at its start, and copy the pages of all code that it runs for that."""
    reply_subjects(spec.nats.reply_prefixes)
    messages.FOR_WORKER.prepare()
    asyncio.get_event_loop_policy()


def _undo_signals_of_imports() -> None:
    for number in _OURS:
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)  # a peer that closes must not end a worker


def _say(text: str) -> None:
    """Writes to the descriptor: imports may have put anything in the place of `sys.stderr`."""
    with contextlib.suppress(OSError):
        os.write(_STDERR, clean(f"{text.rstrip()}\n").encode(errors="backslashreplace"))


class _Template:
    """The executor of the supervisor's orders. `handlers`: None if each worker imports them (`preload = false`)."""

    def __init__(
        self,
        channel: Channel,
        spec: GenerationSpec,
        handlers: Mapping[str, LoadedHandler] | None,
        generators: RandomGenerators,
        run: Run,
    ) -> None:
        self._channel, self._spec, self._handlers, self._run = channel, spec, handlers, run
        self._generators = generators
        self._queues: dict[str, tuple[str, socket.socket, socket.socket]] = {}

    def obey(self) -> None:
        """Waits for one message and executes it.

        :raises ChannelClosed: the supervisor has closed the channel.
        """
        received = self._channel.receive_wait(None)
        assert received is not None
        found, descriptors = received
        match messages.FOR_TEMPLATE.decode(found):
            case messages.NewQueues(names):
                ends = iter([socket.socket(fileno=descriptor) for descriptor in descriptors])
                self._queues.update((queue[0], queue) for queue in zip(names, ends, ends, strict=True))
            case messages.ForkOrder(worker_spec) if not descriptors:
                self._refuse(worker_spec, "the template is out of file descriptors")
            case messages.ForkOrder(worker_spec):
                with socket.socket(fileno=descriptors[0]) as end:
                    self._spawn(worker_spec, end)

    def _refuse(self, worker_spec: WorkerSpec, problem: str) -> None:
        self._channel.send(encode(messages.ForkRefused(worker_spec.serial, problem)))

    def _spawn(self, worker_spec: WorkerSpec, end: socket.socket) -> None:
        flush_streams()  # both processes would write what is in the buffers
        # a signal that arrives before the worker has its handlers stays pending, instead of being lost
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            middle = os.fork()
            if middle == 0:
                self._hand_over(worker_spec, end)
            _, status = os.waitpid(middle, 0)
        except OSError as error:
            self._refuse(worker_spec, f"cannot fork: {os_error_texts.explained(error)}")
            return
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if os.WIFSIGNALED(status):
            self._refuse(worker_spec, f"the forking process was killed by signal {os.WTERMSIG(status)}")
        elif (number := os.WEXITSTATUS(status)) not in (0, _TOLD):
            # at-fork hooks run before any code of this file
            how = f"ended with exit status {number} before it forked the worker"
            self._refuse(worker_spec, f"the forking process {how}: an at-fork hook does so (os.register_at_fork)")

    def _hand_over(self, worker_spec: WorkerSpec, end: socket.socket) -> NoReturn:
        """Runs the middle process: forks the worker, sends its pidfd or the reason of a failure, and ends."""
        status = 0
        try:
            worker = os.fork()
            if worker == 0:
                self._work(worker_spec, end)
            try:
                pidfd = os.pidfd_open(worker)
                self._channel.send(encode(messages.WorkerForked(worker_spec.serial, worker)), [pidfd])
            except BaseException:
                os.kill(worker, signal.SIGKILL)
                raise
        except OSError as error:
            status = _TOLD
            with contextlib.suppress(BaseException):
                self._refuse(worker_spec, f"cannot fork: {os_error_texts.explained(error)}")
        except BaseException:
            status = _TOLD  # the supervisor has closed the channel
        finally:
            os._exit(status)

    def _work(self, worker_spec: WorkerSpec, end: socket.socket) -> NoReturn:
        """Runs the worker process, and ends it, so that it never returns into the template's loop."""
        status = _FAILED
        try:
            os.setsid()
            stray_processes.mark(worker_spec.serial)
            # the supervisor sends SIGSTOP to a worker that hangs; if it is killed then, the kernel sends SIGCONT
            processes.resume_on_parent_death()
            self._channel.close()
            processes.set_title(f"ajhost: worker {worker_spec.slot}")
            self._generators.reseed()
            handlers = self._load() if self._handlers is None else self._handlers
            for number in _OURS:
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
            status = self._run(self._spec, worker_spec, handlers, end, list(self._queues.values()))
        except LoadFailed as failed:
            _say(str(failed))  # the worker's log is not set up yet
        except SystemExit as error:
            status = _exit_status(error)
        except BaseException:
            _say(traceback.format_exc())
        finally:
            flush_streams()
            os._exit(status)

    def _load(self) -> dict[str, LoadedHandler]:
        blocked = signal.pthread_sigmask(signal.SIG_SETMASK, set())  # threads and children inherit the mask
        try:
            return load_handlers(self._spec.handlers, self._spec.python)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _exit_status(error: SystemExit) -> int:
    if error.code is None or isinstance(error.code, int):
        return (error.code or 0) & 0xFF
    _say(str(error.code))  # as the interpreter does
    return _FAILED
