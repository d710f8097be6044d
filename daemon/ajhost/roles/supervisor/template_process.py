"""The supervisor's side of a template process: starts it with the handlers' interpreter, sends it fork orders, notices
its end, and gives it up if it does not fork in time or somebody has stopped it (SIGSTOP). `roles/template/bootstrap.py`
ends its imports at `import_timeout`; `import_effects.py` there judges them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
import signal
import socket
import subprocess
import sysconfig
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import ajhost
from ajhost.adapters.linux import os_error_texts, proc, processes
from ajhost.adapters.linux.channel import MAX_DESCRIPTORS, Channel, ChannelClosed, ChannelFull, pair
from ajhost.adapters.linux.processes import STACKS_OF_IMPORTS, ExitStatus
from ajhost.adapters.nats.tls import own_trust
from ajhost.core.timings import (
    FORK_LIMIT,
    FORK_STOPPED_INTERVAL,
    HANDOVER_LIMIT,
    TEMPLATE_EXIT_LIMIT,
    TEMPLATE_START_MARGIN,
)
from ajhost.roles import messages
from ajhost.roles.handlers import HandlerDescription
from ajhost.roles.messages import GenerationSpec, WorkerSpec
from ajhost.roles.shared_queue.token_queues import TokenQueue
from ajhost.roles.supervisor.import_stacks import ImportStacks
from ajhost.roles.template.host_libraries import directories
from ajhost.roles.template.import_effects import ImportEffect, verdict
from ajhost.settings.sections import HandlerSettings, NatsSettings, PythonSettings, WorkerSettings

WORKER = "ajhost.roles.worker.main:run"
"""The main function of workers (`roles.template.template.Run`)."""
_SYSTEMD = ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_USEC", "WATCHDOG_PID")
"""Variables of the protocol between systemd and the supervisor (sd_notify(3)): user code must not have them."""
_PACKAGE = Path(ajhost.__file__).resolve().parent
_NO_DESCRIPTOR = "the supervisor is out of file descriptors"
_STOPPED = "T"
"""The letter of proc(5) for a process that a signal has stopped."""


class TemplateFailed(Exception):
    """The template cannot start or cannot fork. `problems`: one text for each reason."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Spawned:
    """A forked worker. The receiver closes the pidfd."""

    pid: int
    pidfd: int


class TemplateProcess:
    """The handle of a template that runs.

    `handlers`: the handlers that it has imported, or (`preload = false`) that its workers import. `warnings`: texts on
    what the imports have left and `import_effects.verdict` does not refuse. `distrust`: how its interpreter's trust in
    certificates differs from this one's, if that matters.
    """

    living: ClassVar[set[int]] = set()
    """The pids of all templates of this process, also while they import."""
    loading: ClassVar[list[TemplateProcess]] = []
    """The templates that import the handlers at this moment."""

    def __init__(self, process: subprocess.Popen[bytes], channel: Channel, stacks: ImportStacks) -> None:
        """Called by `start` alone."""
        self.living.add(process.pid)
        self.handlers: tuple[HandlerDescription, ...] = ()
        self.warnings: list[str] = []
        self.distrust = ""
        self._effects: tuple[ImportEffect, ...] = ()
        self._process = process
        self._channel = channel
        self._stacks = stacks
        self._loop = asyncio.get_running_loop()
        self._loaded: asyncio.Future[messages.HandlersLoaded | messages.LoadProblems] = self._loop.create_future()
        self._forks: dict[int, asyncio.Future[Spawned]] = {}
        self._turn = asyncio.Lock()
        self._given: dict[str, int] = {}
        self._callbacks: list[Callable[[str], None]] = []
        self._reason: str | None = None
        self._ended = asyncio.Event()
        self._closing = False
        self._reading = True
        self._loop.add_reader(channel.fileno(), self._readable)
        self._pidfd = os.pidfd_open(process.pid)
        self._loop.add_reader(self._pidfd, self._on_exit)

    @classmethod
    async def start(
        cls, spec: GenerationSpec, queues: Sequence[TokenQueue], timeout: float, *, entry: str = WORKER
    ) -> TemplateProcess:
        """Starts the interpreter, and returns when it has imported the handlers.

        Without `preload` another process imports them first and ends, to prove that workers can.

        :param timeout: seconds that the imports may take.
        :param entry: `module:function`, the main function of workers.
        :raises TemplateFailed: with every reason: import errors, the timeout, what the imports have left and must not.
            It is raised at the latest TEMPLATE_START_MARGIN after `timeout`.
        """
        rehearsed = None
        if not spec.python.preload:
            rehearsed = await cls._start(replace(spec, python=replace(spec.python, preload=True)), timeout, entry)
            await rehearsed.end()
        template = await cls._start(spec, timeout, entry)
        try:
            judged = rehearsed or template
            template.handlers = judged.handlers
            errors, template.warnings = verdict(judged._effects, spec.python, spec.workers.count)
            if errors:
                raise TemplateFailed(errors)
            template._give(queues)
        except BaseException:
            await template.end()
            raise
        return template

    @classmethod
    async def _start(cls, spec: GenerationSpec, timeout: float, entry: str) -> TemplateProcess:
        template = cls._execute(spec.python, timeout, entry)
        cls.loading.append(template)
        try:
            await template._begin(spec, timeout)
        except BaseException:
            await template.end()
            raise
        finally:
            cls.loading.remove(template)
            template._stacks.close()
        return template

    @classmethod
    def _execute(cls, python: PythonSettings, timeout: float, entry: str) -> TemplateProcess:
        # The directory is resolved, so that this generation goes on with its release when a symbolic link is set to
        # the next one. The file is not: a virtual environment's python is a link, and finds it by its own path.
        interpreter = Path(os.path.realpath(python.interpreter.parent), python.interpreter.name)
        ours, theirs = pair()
        stacks = ImportStacks()
        order = {
            "channel": theirs.fileno(),
            "stacks": stacks.descriptor,
            "stacks_signal": STACKS_OF_IMPORTS,
            "parent": os.getpid(),
            "timeout": timeout,
            "entry": entry,
            "interpreter": str(python.interpreter),
            "package": str(_PACKAGE),
            "dependencies": directories(),
            "abi": sysconfig.get_config_var("SOABI"),
            "python": platform.python_version(),
            "version": ajhost.__version__,
        }
        with theirs:
            try:
                process = subprocess.Popen(
                    # -B: a .pyc counts as current if the source has the same size and the same second of change
                    # (importlib), so two deploys within a second would serve the old code
                    [interpreter, "-B", _PACKAGE / "roles" / "template" / "bootstrap.py", json.dumps(order)],
                    env={name: value for name, value in os.environ.items() if name not in _SYSTEMD},
                    stdin=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(), stacks.descriptor),
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                stacks.close()
                problem = f"python.interpreter: {python.interpreter}: {error.strerror}"
                if error.filename is None:  # fork(2), not execve(2)
                    problem = f"cannot fork the handlers' process: {os_error_texts.explained(error)}"
                raise TemplateFailed([problem]) from error
        return cls(process, Channel(ours), stacks)

    async def _begin(self, spec: GenerationSpec, timeout: float) -> None:
        with contextlib.suppress(ChannelClosed):  # the process has ended: `_loaded` gets the reason
            self._channel.send(messages.encode(messages.LoadOrder(spec)))
        try:
            async with asyncio.timeout(timeout + TEMPLATE_START_MARGIN):
                message = await self._loaded
        except TimeoutError:
            problem = f"python.interpreter: {spec.python.interpreter} did not import the handlers in {timeout:g} s"
            raise TemplateFailed([problem]) from None
        if isinstance(message, messages.LoadProblems):
            raise TemplateFailed(list(message.problems))
        self.handlers, self._effects = message.handlers, message.effects
        if message.trust is not None:
            self.distrust = own_trust().difference(message.trust)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def stacks(self) -> str:
        """Returns the stacks of its threads while it imports, written from C; empty if it does not write them."""
        if self._stacks.descriptor < 0 or not proc.catches(self.pid, STACKS_OF_IMPORTS):
            return ""
        self._process.send_signal(STACKS_OF_IMPORTS)
        return await self._stacks.written()

    def on_death(self, callback: Callable[[str], None]) -> None:
        """Calls `callback(how)` when the template ends by itself, soon if it has already; not after `close`."""
        if self._reason is not None and not self._closing:
            self._loop.call_soon(callback, self._reason)
        else:
            self._callbacks.append(callback)

    async def spawn(self, worker_spec: WorkerSpec, channel_end: socket.socket, queues: Sequence[TokenQueue]) -> Spawned:
        """Orders the template to fork a worker, and returns when it has.

        :param channel_end: the worker's end of its channel. The worker gets a duplicate; the caller closes this one.
        :param queues: those that the worker uses. Each is sent to a template once.
        :raises TemplateFailed: fork(2) failed, or the template has ended or does not answer within FORK_LIMIT.
        """
        async with self._turn:
            if self._closing or not self._reading:
                raise TemplateFailed([f"the template is dead: {self._reason or 'closed'}"])
            forked: asyncio.Future[Spawned] = self._loop.create_future()
            self._forks[worker_spec.serial] = forked
            try:
                self._give(queues)
                self._send(messages.ForkOrder(worker_spec), [channel_end.fileno()])
                if (late := await self._too_late(forked)) is not None:
                    self._process.send_signal(signal.SIGKILL)
                    raise TemplateFailed([late])
                return forked.result()
            finally:
                del self._forks[worker_spec.serial]

    async def _too_late(self, forked: asyncio.Future[Spawned]) -> str | None:
        """Waits for the answer to a fork order. Returns why the order is given up; None when the answer is there.

        A large application forks slowly, so it has `FORK_LIMIT`. A template that is stopped is given up before that.
        """
        end, was_stopped = self._loop.time() + FORK_LIMIT, False
        while self._loop.time() < end:
            await asyncio.wait((forked,), timeout=FORK_STOPPED_INTERVAL)
            if forked.done():
                return None
            stopped = proc.state_of(self.pid) == _STOPPED
            if stopped and was_stopped:
                return "the template does not fork: somebody has stopped it (SIGSTOP)"
            was_stopped = stopped
        return f"the template did not fork within {FORK_LIMIT:g} s"

    def _give(self, queues: Sequence[TokenQueue]) -> None:
        new = [queue for queue in queues if self._given.get(queue.name) != queue.renewals]
        step = MAX_DESCRIPTORS // 2
        for start in range(0, len(new), step):
            part = new[start : start + step]
            ends = [end.fileno() for queue in part for end in (queue.receive, queue.send)]
            self._send(messages.NewQueues(tuple(queue.name for queue in part)), ends)
            self._given.update((queue.name, queue.renewals) for queue in part)

    def _send(self, message: messages.ToTemplate, descriptors: Sequence[int]) -> None:
        try:
            self._channel.send(messages.encode(message), descriptors)
        except (ChannelClosed, ChannelFull) as error:
            raise TemplateFailed([f"the template does not listen: {error}"]) from error

    def close(self) -> None:
        """Ends the template; its workers run on. Returns at once: `end` waits for the end.

        One that has imported the handlers ends when its channel does, and removes what the imports have made.
        """
        self._closing = True
        if self.handlers:
            self._loop.call_later(TEMPLATE_EXIT_LIMIT, self._kill)
        else:
            self._kill()
        self._finish()

    def _kill(self) -> None:
        if self._reason is None:
            self._process.send_signal(signal.SIGKILL)

    async def end(self) -> None:
        """As `close`, and returns when the template's process has ended."""
        self.close()
        await self._ended.wait()

    def _readable(self) -> None:
        try:
            for found, descriptors in self._channel.received():
                try:
                    self._on_message(messages.FROM_TEMPLATE.decode(found), descriptors)
                except messages.BadMessage as error:
                    if not self._loaded.done():
                        self._loaded.set_result(messages.LoadProblems((f"the template sent {error}",)))
        except ChannelClosed:
            self._finish()

    def _on_message(self, message: messages.FromTemplate, descriptors: list[int]) -> None:
        match message:
            case messages.WorkerForked(serial, pid):
                pidfd = descriptors.pop() if descriptors else processes.pidfd_of_child(pid)
                if pidfd is None:
                    self._refused(serial, _NO_DESCRIPTOR)
                    return
                forked = self._forks.get(serial)
                if forked is not None and not forked.done():
                    forked.set_result(Spawned(pid, pidfd))
                else:  # the fork order was given up, or cancelled
                    with contextlib.suppress(ProcessLookupError):
                        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    os.close(pidfd)
            case messages.ForkRefused(serial, problem):
                self._refused(serial, problem)
            case messages.HandlersLoaded() | messages.LoadProblems():
                if not self._loaded.done():
                    self._loaded.set_result(message)

    def _refused(self, serial: int, problem: str) -> None:
        forked = self._forks.get(serial)
        if forked is not None and not forked.done():
            forked.set_exception(TemplateFailed([problem]))

    def _on_exit(self) -> None:
        status = self._process.wait()
        self.living.discard(self.pid)
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        ended = ExitStatus(-status, None, False) if status < 0 else ExitStatus(None, status, False)
        self._reason = ended.text
        self._readable()
        if not self._loaded.done():
            self._loaded.set_result(messages.LoadProblems((self._stacks.last_words(ended.text),)))
        if self._forks:
            self._loop.call_later(HANDOVER_LIMIT, self._finish)
        else:
            self._finish()
        self._ended.set()
        if not self._closing:
            for callback in self._callbacks:
                callback(self._reason)

    def _finish(self) -> None:
        """Closes the channel, and fails the forks that wait for an answer."""
        if not self._reading:
            return
        self._reading = False
        self._loop.remove_reader(self._channel.fileno())
        self._channel.close()
        for forked in self._forks.values():
            if not forked.done():
                forked.set_exception(TemplateFailed([f"the template died: {self._reason or 'its channel closed'}"]))


async def rehearse(
    python: PythonSettings,
    handlers: tuple[HandlerSettings, ...],
    timeout: float,
    *,
    entry: str = WORKER,
    schemas: bool = False,
) -> tuple[tuple[HandlerDescription, ...], list[str]]:
    """Imports the handlers in a template that is ended afterwards.

    :param schemas: whether the descriptions have the JSON Schemas of the payloads.
    :returns: descriptions of the handlers, and warnings on what the imports have left.
    :raises TemplateFailed: with every problem.
    """
    workers = WorkerSettings()
    spec = GenerationSpec(0, Path("/"), NatsSettings(), python, workers, handlers, schemas=schemas)
    template = await TemplateProcess.start(spec, (), timeout, entry=entry)
    await template.end()
    return template.handlers, template.warnings
