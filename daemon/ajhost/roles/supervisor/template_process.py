"""The supervisor's side of a template process: starts it, sends it fork orders, and notices its end."""

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
from ajhost.adapters.linux import child_processes, processes, refusals
from ajhost.adapters.linux.channel import MAX_DESCRIPTORS, Channel, ChannelClosed, ChannelFull, pair
from ajhost.adapters.linux.processes import STACKS_OF_IMPORTS, ExitStatus
from ajhost.adapters.nats.certificate_stores import own_trust
from ajhost.core.timings import (
    HANDOVER_LIMIT,
    POLL_INTERVAL,
    TEMPLATE_STACKS_LIMIT,
    TEMPLATE_START_MARGIN,
)
from ajhost.roles.handlers import HandlerDescription
from ajhost.roles.messages import (
    FROM_TEMPLATE,
    BadMessage,
    ForkOrder,
    ForkRefused,
    FromTemplate,
    HandlersLoaded,
    LoadOrder,
    LoadProblems,
    NewQueues,
    ToTemplate,
    WorkerForked,
    encode,
)
from ajhost.roles.process_specs import GenerationSpec, WorkerSpec
from ajhost.roles.shared_queue.token_queues import TokenQueue
from ajhost.roles.supervisor.fork_timeout import fork_answer
from ajhost.roles.template.dependencies import directories
from ajhost.roles.template.import_effects import ImportEffect, verdict
from ajhost.settings.values import HandlerSettings, NatsSettings, PythonSettings, WorkerSettings

WORKER = "ajhost.roles.worker.main:run"
"""The main function of workers (`roles.template.template.Run`)."""
_PACKAGE = Path(ajhost.__file__).resolve().parent
_SYSTEMD = ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_USEC", "WATCHDOG_PID")
"""Variables of the protocol between systemd and the supervisor (sd_notify(3)): user code must not have them."""
_LONGEST_STACKS = 16 << 10
_NO_DESCRIPTOR = "the supervisor is out of file descriptors"


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
    """A running template.

    `handlers`: the handlers that it has imported, or (`preload = false`) that its workers import. `warnings`: texts on
    what the imports have left and `import_effects.verdict` does not refuse. `distrust`: how its interpreter's trust in
    certificates differs from this one's, if that matters.
    """

    living: ClassVar[set[int]] = set()
    """The pids of all templates of this process, also while they import."""
    loading: ClassVar[list[TemplateProcess]] = []
    """The templates that import the handlers at this moment."""

    def __init__(self, process: subprocess.Popen[bytes], channel: Channel, stacks: int) -> None:
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
        self._loaded: asyncio.Future[HandlersLoaded | LoadProblems] = self._loop.create_future()
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
        self._loop.add_reader(self._pidfd, self._gone)

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
            rehearsed = await cls._start(
                replace(spec, python=replace(spec.python, preload=True)), timeout, entry
            )
            rehearsed.close()
            await rehearsed.wait_closed()
        template = await cls._start(spec, timeout, entry)
        try:
            judged = rehearsed or template
            template.handlers = judged.handlers
            errors, template.warnings = verdict(judged._effects, spec.python, spec.workers.count)
            if errors:
                raise TemplateFailed(errors)
            template._give(queues)
        except BaseException:
            template.close()
            await template.wait_closed()
            raise
        return template

    @classmethod
    async def _start(cls, spec: GenerationSpec, timeout: float, entry: str) -> TemplateProcess:
        template = cls._execute(spec.python, timeout, entry)
        cls.loading.append(template)
        try:
            await template._begin(spec, timeout)
        except BaseException:
            template.close()
            await template.wait_closed()
            raise
        finally:
            cls.loading.remove(template)
            template._close_stacks()
        return template

    @classmethod
    def _execute(cls, python: PythonSettings, timeout: float, entry: str) -> TemplateProcess:
        # The directory is resolved, so that this generation goes on with its release when a symbolic link is set to
        # the next one. The file is not: a virtual environment's python is a link, and finds it by its own path.
        interpreter = Path(os.path.realpath(python.interpreter.parent), python.interpreter.name)
        ours, theirs = pair()
        stacks = os.memfd_create("ajhost-stacks", os.MFD_CLOEXEC)
        order = {
            "channel": theirs.fileno(),
            "stacks": stacks,
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
                    pass_fds=(theirs.fileno(), stacks),
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                os.close(stacks)
                problem = f"python.interpreter: {python.interpreter}: {error.strerror}"
                if error.filename is None:  # fork(2), not execve(2)
                    problem = f"cannot fork the handlers' process: {refusals.explained(error)}"
                raise TemplateFailed([problem]) from error
        return cls(process, Channel(ours), stacks)

    async def _begin(self, spec: GenerationSpec, timeout: float) -> None:
        with contextlib.suppress(ChannelClosed):  # the process has ended: `_loaded` gets the reason
            self._channel.send(encode(LoadOrder(spec)))
        try:
            async with asyncio.timeout(timeout + TEMPLATE_START_MARGIN):
                message = await self._loaded
        except TimeoutError:
            problem = (
                f"python.interpreter: {spec.python.interpreter} did not import the handlers in {timeout:g} s"
            )
            raise TemplateFailed([problem]) from None
        if isinstance(message, LoadProblems):
            raise TemplateFailed(list(message.problems))
        self.handlers, self._effects = message.handlers, message.effects
        if message.trust is not None:
            self.distrust = own_trust().difference(message.trust)

    @property
    def pid(self) -> int:
        """The process id of the template."""
        return self._process.pid

    async def stacks(self) -> str:
        """What its threads are doing while it imports, written from C; empty if it tells nothing."""
        if self._stacks < 0 or not processes.catches(self.pid, STACKS_OF_IMPORTS):
            return ""
        self._process.send_signal(STACKS_OF_IMPORTS)
        end, size = self._loop.time() + TEMPLATE_STACKS_LIMIT, 0
        while self._loop.time() < end:
            await asyncio.sleep(POLL_INTERVAL)
            if self._stacks < 0:
                return ""  # the imports are through
            before, size = size, os.fstat(self._stacks).st_size
            if 0 < size == before:
                break
        text = os.pread(self._stacks, _LONGEST_STACKS, 0).decode(errors="replace")
        if not text.startswith("Timeout"):
            os.ftruncate(self._stacks, 0)
            os.lseek(self._stacks, 0, os.SEEK_SET)  # where the template writes too
        return "\n".join(_of_handlers(text))

    def on_death(self, callback: Callable[[str], None]) -> None:
        """Calls `callback(how)` when the template ends by itself, soon if it has already; not after `close`."""
        if self._reason is not None and not self._closing:
            self._loop.call_soon(callback, self._reason)
        else:
            self._callbacks.append(callback)

    async def spawn(
        self, worker_spec: WorkerSpec, channel_end: socket.socket, queues: Sequence[TokenQueue]
    ) -> Spawned:
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
                self._send(ForkOrder(worker_spec), [channel_end.fileno()])
                return await fork_answer(forked, self.pid)
            except TimeoutError as late:
                self._process.send_signal(signal.SIGKILL)
                raise TemplateFailed([str(late)]) from None
            finally:
                del self._forks[worker_spec.serial]

    def _give(self, queues: Sequence[TokenQueue]) -> None:
        new = [queue for queue in queues if self._given.get(queue.name) != queue.renewals]
        step = MAX_DESCRIPTORS // 2
        for start in range(0, len(new), step):
            part = new[start : start + step]
            ends = [end.fileno() for queue in part for end in (queue.receive, queue.send)]
            self._send(NewQueues(tuple(queue.name for queue in part)), ends)
            self._given.update((queue.name, queue.renewals) for queue in part)

    def _send(self, message: ToTemplate, descriptors: Sequence[int]) -> None:
        try:
            self._channel.send(encode(message), descriptors)
        except (ChannelClosed, ChannelFull) as error:
            raise TemplateFailed([f"the template does not listen: {error}"]) from error

    def close(self) -> None:
        """Kills the template; its workers run on. Returns at once: `wait_closed` waits for the end."""
        self._closing = True
        if self._reason is None:
            self._process.send_signal(signal.SIGKILL)
        self._finish()

    async def wait_closed(self) -> None:
        """Returns when the template's process has ended."""
        await self._ended.wait()

    def _readable(self) -> None:
        try:
            for found, descriptors in self._channel.received():
                try:
                    self._take(FROM_TEMPLATE.decode(found), descriptors)
                except BadMessage as error:
                    if not self._loaded.done():
                        self._loaded.set_result(LoadProblems((f"the template sent {error}",)))
        except ChannelClosed:
            self._finish()

    def _take(self, message: FromTemplate, descriptors: list[int]) -> None:
        match message:
            case WorkerForked(serial, pid):
                pidfd = descriptors.pop() if descriptors else child_processes.pidfd_of_child(pid)
                if pidfd is None:
                    self._refused(serial, _NO_DESCRIPTOR)
                    return
                forked = self._forks.get(serial)
                if forked is not None and not forked.done():
                    forked.set_result(Spawned(pid, pidfd))
                else:  # whoever asked has gone
                    with contextlib.suppress(ProcessLookupError):
                        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                    os.close(pidfd)
            case ForkRefused(serial, problem):
                self._refused(serial, problem)
            case HandlersLoaded() | LoadProblems():
                if not self._loaded.done():
                    self._loaded.set_result(message)

    def _refused(self, serial: int, problem: str) -> None:
        forked = self._forks.get(serial)
        if forked is not None and not forked.done():
            forked.set_exception(TemplateFailed([problem]))

    def _gone(self) -> None:
        """The process has ended."""
        status = self._process.wait()
        self.living.discard(self.pid)
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        ended = ExitStatus(-status, None, False) if status < 0 else ExitStatus(None, status, False)
        self._reason = ended.text
        self._readable()
        if not self._loaded.done():
            self._loaded.set_result(LoadProblems((self._last_words(ended),)))
        if self._forks:
            self._loop.call_later(HANDOVER_LIMIT, self._finish)
        else:
            self._finish()
        self._ended.set()
        if not self._closing:
            for callback in self._callbacks:
                callback(self._reason)

    def _last_words(self, ended: ExitStatus) -> str:
        stacks = (
            "" if self._stacks < 0 else os.pread(self._stacks, _LONGEST_STACKS, 0).decode(errors="replace")
        )
        lines = _of_handlers(stacks)
        if stacks.startswith("Timeout"):
            return "\n".join(["an import of the handlers did not end in time; its stacks:", *lines[1:]])
        return "\n".join([f"the import of the handlers ended the process: {ended.text}", *lines])

    def _finish(self) -> None:
        """Closes the channel, and fails the forks that wait for an answer."""
        if not self._reading:
            return
        self._reading = False
        self._loop.remove_reader(self._channel.fileno())
        self._channel.close()
        for forked in self._forks.values():
            if not forked.done():
                forked.set_exception(
                    TemplateFailed([f"the template died: {self._reason or 'its channel closed'}"])
                )

    def _close_stacks(self) -> None:
        os.close(self._stacks)
        self._stacks = -1


def _of_handlers(stacks: str) -> list[str]:
    """The lines that are not of the machinery of imports."""
    return [
        line.rstrip()
        for line in stacks.splitlines()
        if "<frozen importlib" not in line
        and f"{_PACKAGE}/" not in line
        and "/importlib/__init__.py" not in line
    ]


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
    template.close()
    await template.wait_closed()
    return template.handlers, template.warnings
