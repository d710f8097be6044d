"""A start without the queue group, for `ajhost check`: the same imports, the same fork, one worker made and ended.
Checks what else a start needs, too: the runtime directory and its room, descriptors, and the port of `[http]`.

The worker is the real one. It connects to a server of this module's own, on a ledger in a directory of its own, so that
it neither gets a task nor touches a host that runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import orjson

from ajhost.adapters.linux import (
    ledger_file,
    os_error_texts,
    proc,
    processes,
    requirements,
    runtime_directory,
    stray_processes,
)
from ajhost.adapters.linux.channel import Channel, ChannelClosed, pair
from ajhost.adapters.linux.descriptors import closing
from ajhost.adapters.nats.credentials import trusts_interpreter
from ajhost.core.timings import POLL_INTERVAL, REHEARSAL_LEAVE_LIMIT, REHEARSAL_SERVE_LIMIT
from ajhost.ledger.layout import SUPERVISOR_SLOT, Identity
from ajhost.roles import ledger_sizes, messages
from ajhost.roles.handlers import HandlerDescription
from ajhost.roles.messages import GenerationSpec, WorkerSpec, encode
from ajhost.roles.shared_queue.token_queues import TokenQueue
from ajhost.roles.supervisor.generations import Generations
from ajhost.roles.supervisor.runtime_files import RuntimeFiles
from ajhost.roles.supervisor.template_process import TemplateFailed, TemplateProcess
from ajhost.settings.sections import LogSettings, NatsSettings, Settings, WorkerSettings

_SUPERVISOR, _WORKER = 1, 2
_OWN_FILES = 12
"""Files of a host in its runtime directory besides its workers' ledgers; some are written anew beside the old."""


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What a start would do. `problems` keep it from serving; `warnings` do not."""

    handlers: tuple[HandlerDescription, ...]
    warnings: tuple[str, ...]
    problems: tuple[str, ...]


async def rehearse(settings: Settings, *, runtime: bool = True) -> Rehearsal:
    """Rehearses a start of these settings, as this user, in this process's surroundings.

    :param runtime: whether to check the runtime directory; a unit makes it just before the start.
    """
    requirements.raise_file_limit()  # as a start does
    processes.become_subreaper()  # a worker is forked twice, so it would become another process's child
    if (problem := requirements.lacking_proc()) is not None:
        return Rehearsal((), (), (problem,))  # nothing else can be tried
    problems = []
    if runtime and (problem := _runtime_problem(settings)) is not None:
        problems.append(f"runtime.directory: {problem}")
    if (problem := requirements.lacking_files(settings.workers.count)) is not None:
        problems.append(problem)
    if settings.http is not None and (problem := await _port_problem(settings)) is not None:
        problems.append(problem)
    handlers: tuple[HandlerDescription, ...] = ()
    warnings: list[str] = []
    try:
        with tempfile.TemporaryDirectory(prefix="ajhost-check-", dir=_scratch()) as place:
            await _make_files(Path(place))
            handlers, warnings = await _fork_and_serve(settings, Path(place))
    except TemplateFailed as failed:
        problems += failed.problems
    except OSError as error:
        problems.append(f"cannot rehearse: {os_error_texts.described(error)}")
    finally:
        await _end_what_is_left()
    return Rehearsal(handlers, tuple(warnings), tuple(problems))


async def _make_files(place: Path) -> None:
    """Makes in `place` what a start makes in its runtime directory: the lock, and the sockets for commands."""
    files = RuntimeFiles(place, runtime_directory.prepare(place))
    try:
        files.make()
        await files.listen(place, {}, bytes)
    finally:
        files.close_sockets()
        files.close()


async def _end_what_is_left() -> None:
    """Ends what the imports have started: this process is their subreaper, so that they are its children by now."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(REHEARSAL_LEAVE_LIMIT):
            strays = stray_processes.StrayProcesses()
            while left := proc.children():
                for pid in left:
                    os.kill(pid, signal.SIGKILL)  # not reaped yet, so the kernel has not given the pid away
                strays.reap()
                await asyncio.sleep(POLL_INTERVAL)


async def _fork_and_serve(settings: Settings, place: Path) -> tuple[tuple[HandlerDescription, ...], list[str]]:
    workers = replace(settings.workers, drain_timeout=min(settings.workers.drain_timeout, REHEARSAL_LEAVE_LIMIT))
    generations = Generations(place)
    async with _server() as url:
        nats = NatsSettings(servers=(url,), queue_group=settings.nats.queue_group)
        spec = generations.make(replace(settings, nats=nats, workers=workers, log=LogSettings("error")))
        spec = replace(spec, tell_trust=trusts_interpreter(settings.nats))
        with contextlib.ExitStack() as queues:
            for queue in generations.queues:
                queues.callback(queue.close)
            template = await TemplateProcess.start(spec, generations.queues, settings.python.import_timeout)
            try:
                await _one_worker(spec, template, generations.queues, settings.python.import_timeout)
            finally:
                await template.end()
        return template.handlers, [*template.warnings, *filter(None, (template.distrust,))]


async def _one_worker(
    spec: GenerationSpec, template: TemplateProcess, queues: Sequence[TokenQueue], imports: float
) -> None:
    """Forks a worker, and ends it when it serves. :raises TemplateFailed: it does not serve."""
    directory = spec.runtime / "ledger"
    geometry = ledger_sizes.worker_geometry(spec.workers)
    for serial, slot in ((_SUPERVISOR, SUPERVISOR_SLOT), (_WORKER, 0)):
        ledger_file.make(directory, geometry, Identity(serial, slot, 1))
    ours, theirs = pair()
    channel = Channel(ours)
    try:
        with theirs:
            worker = await template.spawn(WorkerSpec(0, _WORKER, 1, _SUPERVISOR), theirs, queues)
        try:
            patience = REHEARSAL_SERVE_LIMIT if spec.python.preload else REHEARSAL_SERVE_LIMIT + imports
            if spec.python.lifespan is not None:
                patience += spec.python.start_timeout
            if not await _serves(channel, patience):
                how = "did not serve in time" if not processes.has_ended(worker.pidfd) else "died before it served"
                raise TemplateFailed([f"a worker {how}{await _status(worker.pidfd)}; its own words stand above"])
            channel.send(encode(messages.LeaveOrder(stop=True)))
            channel.send(encode(messages.FinishOrder()))  # no other worker has to leave the group first
            await _status(worker.pidfd)
        finally:
            processes.pidfd_signal(worker.pidfd, signal.SIGKILL)
            await _status(worker.pidfd)
            os.close(worker.pidfd)
    finally:
        channel.close()


async def _serves(channel: Channel, patience: float) -> bool:
    """Whether the worker serves in time. Tells it that its socket is stored, as a supervisor does."""
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(channel.fileno(), readable.set)
    try:
        async with asyncio.timeout(patience):
            while True:
                await readable.wait()
                readable.clear()
                while (received := channel.receive()) is not None:
                    found, descriptors = received
                    for descriptor in descriptors:
                        os.close(descriptor)
                    match messages.FROM_WORKER.decode(found):
                        case messages.NewSocket(epoch):
                            channel.send(encode(messages.SocketStored(epoch)))
                        case messages.WorkerReady():
                            return True
                        case messages.StartFailed(why):
                            raise TemplateFailed([why])
    except (TimeoutError, ChannelClosed):
        return False
    finally:
        loop.remove_reader(channel.fileno())


async def _status(pidfd: int) -> str:
    """Returns `: exit status 1` once the process has ended; empty if it does not end in time."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(pidfd, ended.set)
    try:
        async with asyncio.timeout(REHEARSAL_LEAVE_LIMIT):
            await ended.wait()
        status = processes.wait_status(pidfd)
        return f": {status.text}" if status is not None else ""
    except TimeoutError:
        return ""
    finally:
        loop.remove_reader(pidfd)


# -- a server without requesters ------------------------------------------------------------------


@contextlib.asynccontextmanager
async def _server() -> AsyncIterator[str]:
    """Runs a NATS server that takes subscriptions and has no messages. Yields its address."""
    serving: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (task := asyncio.current_task()) is not None:
            serving[task] = writer
        with contextlib.suppress(OSError, ValueError, asyncio.IncompleteReadError):
            writer.write(b"INFO " + orjson.dumps(_INFO) + b"\r\n")
            while line := await reader.readline():
                if line.startswith(b"PING"):
                    writer.write(b"PONG\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        await _reach(host, port)
        yield f"nats://{host}:{port}"
    finally:
        server.close()
        for writer in serving.values():
            writer.transport.abort()  # each task ends with its connection
        await asyncio.gather(*serving, return_exceptions=True)


async def _reach(host: str, port: int) -> None:
    """:raises TemplateFailed: no worker could connect, whatever the handlers are."""
    try:
        async with asyncio.timeout(REHEARSAL_LEAVE_LIMIT):
            _, writer = await asyncio.open_connection(host, port)
    except OSError as error:  # TimeoutError is one
        why = error.strerror or "no answer"
        raise TemplateFailed(
            [
                f"cannot rehearse: {host} cannot be reached: {why}: the loopback interface is down "
                "(ip link set lo up), or a firewall or IPAddressDeny= forbids it"
            ]
        ) from None
    writer.close()


_INFO = {
    "server_id": "REHEARSAL", "server_name": "rehearsal", "version": "2.10.0", "proto": 1, "headers": True,
    "max_payload": ledger_sizes.MAX_PAYLOAD, "host": "127.0.0.1", "port": 4222, "client_id": 1,
}  # fmt: skip


# -- surroundings ---------------------------------------------------------------------------------


def _scratch() -> str | None:
    """Returns the directory for the ledgers: in memory, where that is possible."""
    shared = "/dev/shm"
    return shared if os.access(shared, os.W_OK | os.X_OK) else None


def _runtime_problem(settings: Settings) -> str | None:
    """Returns why no host could use the runtime directory."""
    directory = settings.runtime.directory
    try:
        if runtime_directory.is_locked(directory):
            return None  # a host runs on it, and has what it needs
        place, problem = directory, _directory_problem(directory)
    except FileNotFoundError:
        place, problem = next(parent for parent in directory.parents if parent.exists()), None
        if not os.access(place, os.W_OK | os.X_OK):
            why = f"{place} cannot be written by this user: {runtime_directory.ANOTHER}"
            problem = f"{directory} cannot be made: {why}"
    except OSError as error:
        return f"{directory}: {os_error_texts.explained(error)}, allowed: a directory of our own"
    return problem or _room_problem(settings.workers, place)


def _directory_problem(directory: Path) -> str | None:
    with closing(runtime_directory.open_directory(directory)) as descriptor:
        problem = runtime_directory.trouble(directory, os.fstat(descriptor))
    if problem is not None:
        return problem
    if os.access(directory, os.W_OK | os.X_OK):
        return None
    number = errno.EROFS if os.statvfs(directory).f_flag & os.ST_RDONLY else errno.EACCES
    why = os_error_texts.explained(OSError(number, os.strerror(number)))
    return f"{directory}: {why}, allowed: one that this user may write"


def _room_problem(workers: WorkerSettings, place: Path) -> str | None:
    try:
        room = os.statvfs(place)
    except OSError:  # a sandbox refuses the look; the start allocates what it needs, and says what it lacks
        return None
    if (missing := ledger_sizes.lacking(workers, place, room.f_bavail * room.f_frsize)) is not None:
        return missing
    if room.f_files and room.f_favail < (files := workers.count + _OWN_FILES):
        return (
            f"{room.f_favail} files can be made in {place}, {files} are needed: "
            "make that file system with more inodes (tmpfs: nr_inodes=)"
        )
    return None


async def _port_problem(settings: Settings) -> str | None:
    from ajhost.adapters.http import CannotListen, HttpServer, PageAccess

    assert settings.http is not None
    try:
        server = await HttpServer.start(settings.http.listen, {}, PageAccess())
    except CannotListen as error:
        if runtime_directory.is_locked(settings.runtime.directory) and _is_listened_on(settings.http.listen):
            return None  # by the host that runs on these settings
        return f"http.listen: {error}"
    server.close()
    return None


def _is_listened_on(listen: str) -> bool:
    host, _, port = listen.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), 1.0).close()
    except OSError:
        return False
    return True
