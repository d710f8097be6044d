"""A real host for a test: `python -m ajhost run` as a process, with settings and handlers of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ajhost.adapters.linux import ledger_file
from ajhost.ledger.layout import State
from tests.support import forked_commands, processes
from tests.support.notify_socket import NotifySocket
from tests.support.process_log import Line, Log, Wanted
from tests.support.processes import ProcessInfo
from tests.support.program import PROGRAM, CommandResult, run

ROOT = Path(__file__).parents[2]
HANDLERS = "tests.support.handlers"
START_TIMEOUT = 60.0
_PATIENCE = 1.0
"""Seconds from the first signal of a test's end to the second, which hurries."""
STOP_TIMEOUT = 40.0
_WORKER = re.compile(r"^ajhost: worker (\d+)")
_TEMPLATE = "ajhost: template"

Section = Mapping[str, Any]
Process = asyncio.subprocess.Process | forked_commands.ForkedProcess


class HostFailed(AssertionError):
    """The host did something else than the test needed; the text holds its log."""


def toml_value(value: object) -> str:
    """`value` in TOML, whose strings, lists, numbers and booleans are JSON's; mappings become inline tables."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(key)} = {toml_value(item)}" for key, item in value.items()) + " }"
    if isinstance(value, Path):
        return json.dumps(str(value))
    return json.dumps(value, default=str)


def settings_text(sections: Mapping[str, Section]) -> str:
    """A settings file: sections of keys. Keys that are mappings become inline tables."""
    text = []
    for name, section in sections.items():
        text.append(f"[{name}]")
        text += [f"{json.dumps(key)} = {toml_value(value)}" for key, value in section.items()]
    return "\n".join(text) + "\n"


def steady(status: object) -> object:
    """A status without what is another one a moment later: times, memory, CPU."""
    if isinstance(status, dict):
        return {
            key: steady(value)
            for key, value in status.items()
            if key not in ("memory", "cpu", "per_second", "errors_per_second") and not key.endswith("_s")
        }
    return [steady(value) for value in status] if isinstance(status, list) else status


class Host:
    """One `ajhost run`, its log, its notifications and its processes.

    The fixtures `start_host` and `new_host` make them. On entry it is started and ready; on exit it is stopped by
    SIGTERM unless the test ended it, and no process of it may be left.

    :param handlers: route -> function of `tests.support.handlers`, or `module:function`, or a table of settings whose
        `target` is either of them. Default: the route `echo`.
    :param modules: name -> source of handler modules of the test's own.
    :param sections: more settings, `{"workers": {"count": 4}}`; they are merged over what this class writes.
    :param launcher: the program that starts it: within a control group, on one CPU, with closed streams. It gets the
        host's own program as its last arguments.
    """

    def __init__(
        self,
        directory: Path,
        *,
        nats: str | Sequence[str],
        handlers: Mapping[str, str | Section] | None = None,
        modules: Mapping[str, str] | None = None,
        sections: Mapping[str, Section] | None = None,
        env: Mapping[str, str] | None = None,
        launcher: Sequence[str] = (),
    ) -> None:
        self.launcher = launcher
        # processes are recognised by their working directory, so each host needs one of its own
        self.directory = Path(tempfile.mkdtemp(prefix="host-", dir=directory.resolve()))
        self.application = self.directory / "app"
        self.application.mkdir()
        self.file = self.directory / "ajhost.toml"
        # short, because sockets live there (108 bytes), and a tmpfs where there is one
        shared = Path("/dev/shm")
        self.runtime = Path(tempfile.mkdtemp(prefix="ajhost-", dir=shared if shared.is_dir() else None))
        self._servers = [nats] if isinstance(nats, str) else list(nats)
        self._env = dict(env or {})
        self._process: Process | None = None
        self._log: Log | None = None
        self._notify: NotifySocket | None = None
        for name, source in (modules or {}).items():
            self.write_module(name, source)
        self.configure(handlers or {"echo": "echo"}, sections)

    def write_module(self, name: str, source: str) -> None:
        """Writes or replaces a handler module; `reload` brings it into service."""
        path = self.application / f"{name}.py"
        new = path.with_suffix(".new")
        new.write_text(source)
        new.replace(path)

    def configure(self, handlers: Mapping[str, str | Section], sections: Mapping[str, Section] | None = None) -> None:
        """Writes the settings file anew; `reload` or the next `start` brings it into service."""
        text: dict[str, dict[str, Any]] = {
            "nats": {"servers": self._servers},
            "python": {"path": [self.application, ROOT]},
            "workers": {"count": 2, "drain_timeout": 10.0},
            "runtime": {"directory": self.runtime},
        }
        for route, handler in handlers.items():
            table = {"target": handler} if isinstance(handler, str) else dict(handler)
            if ":" not in table["target"]:
                table["target"] = f"{HANDLERS}:{table['target']}"
            text[f"handlers.{json.dumps(route)}"] = table
        for name, section in (sections or {}).items():
            text[name] = {**text.get(name, {}), **section}
        self.write_settings(settings_text(text))

    def write_settings(self, text: str) -> None:
        """Replaces the settings file by exactly this, valid or not."""
        new = self.file.with_suffix(".new")
        new.write_text(text)
        new.chmod(0o600)  # it may hold a password
        new.replace(self.file)

    # running it

    @property
    def program(self) -> tuple[str, ...]:
        """The command that runs it."""
        return (*PROGRAM, "run", "-c", str(self.file))

    @property
    def environment(self) -> dict[str, str]:
        """What the program is started with."""
        path = os.pathsep.join(filter(None, (str(ROOT / "daemon"), os.environ.get("PYTHONPATH"))))
        return {**os.environ, "PYTHONPATH": path, **self._env}

    async def launch(self) -> None:
        """Starts it without waiting for its readiness."""
        self._notify = self._listen(self.runtime.with_name(f"{self.runtime.name}.notify"))
        # a pipe that asyncio does not know: with its own, `wait` would wait for orphans that hold the other end
        read_end, write_end = os.pipe()
        try:
            self._process = await self._execute(write_end, str(self._notify.path))
        finally:
            os.close(write_end)
        self._log = await Log.of_pipe(read_end)

    def _listen(self, path: Path) -> NotifySocket:
        """Who receives its notifications."""
        return NotifySocket(path)

    async def _execute(
        self, output: int, notify: str, launcher: Sequence[str] = (), pass_fds: Sequence[int] = ()
    ) -> Process:
        """Starts the program, by a launcher if need be; output and notifications go where the two say."""
        env = {**self.environment, "NOTIFY_SOCKET": notify}
        launcher = (*launcher, *self.launcher)
        if not launcher and not pass_fds:
            process = await forked_commands.start(
                self.program, env=env, directory=self.directory, output=output, new_session=True
            )
            if process is not None:
                return process
        return await asyncio.create_subprocess_exec(
            *launcher,
            *self.program,
            cwd=self.directory,
            env=env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            pass_fds=pass_fds,
        )

    async def start(self) -> None:
        """Starts it and returns when it says READY=1. Raises HostFailed if it ends first or takes too long."""
        await self.launch()
        await self.ready()

    async def ready(self, timeout: float = START_TIMEOUT) -> None:
        """Returns when it has said READY=1 since its start."""
        ready = asyncio.create_task(self.notifications.next("READY", "1", timeout=timeout))
        ended = asyncio.create_task(self._running.wait())
        try:
            await asyncio.wait((ready, ended), return_when=asyncio.FIRST_COMPLETED)
            if not ready.done():
                raise HostFailed(f"it ended with {ended.result()} before it was ready:\n{await self._last_log()}")
            try:
                ready.result()
            except TimeoutError:
                raise HostFailed(f"not ready within {timeout} s:\n{self.log_text()}") from None
        finally:
            ready.cancel()
            ended.cancel()
            await asyncio.gather(ready, ended, return_exceptions=True)

    async def wait(self, timeout: float = STOP_TIMEOUT) -> int:
        """Waits for its end and returns its exit status (-N: signal N). Raises HostFailed after `timeout` s."""
        try:
            return await asyncio.wait_for(self._running.wait(), timeout)
        except TimeoutError:
            raise HostFailed(f"it runs on after {timeout} s:\n{self.log_text()}") from None

    async def run_to_end(self, timeout: float = STOP_TIMEOUT) -> int:
        """Starts it, waits for its end, returns its exit status: for hosts that must refuse to start."""
        await self.launch()
        status = await self.wait(timeout)
        await self._last_log()
        return status

    async def terminate(self, timeout: float = STOP_TIMEOUT) -> int:
        """SIGTERM, then its exit status."""
        self.send_signal(signal.SIGTERM)
        return await self.wait(timeout)

    async def _end(self) -> int:
        """As `terminate`, for a test that has seen all that it wanted: past a server's restart a stop has patience."""
        self.send_signal(signal.SIGTERM)
        try:
            return await asyncio.wait_for(self._running.wait(), _PATIENCE)
        except TimeoutError:
            return await self.terminate()

    async def restart(self) -> None:
        """Starts it again after its end, on the same settings and the same runtime directory."""
        await self.relaunch()
        await self.ready()

    async def relaunch(self) -> None:
        """As `restart`, without waiting for its readiness."""
        await self._forget()
        await self.launch()

    @property
    def _running(self) -> Process:
        if self._process is None:
            raise HostFailed("the host was not started")
        return self._process

    @property
    def pid(self) -> int:
        """The supervisor's process."""
        return self._running.pid

    @property
    def notifications(self) -> NotifySocket:
        """What it told its service manager."""
        if self._notify is None:
            raise HostFailed("the host was not started")
        return self._notify

    @property
    def output(self) -> Log:
        """What it, and each process of it, wrote to stdout and stderr."""
        if self._log is None:
            raise HostFailed("the host was not started")
        return self._log

    def log_text(self) -> str:
        """All of its output so far."""
        return self.output.text()

    async def log(self, part: Wanted, *, since: int = 0, timeout: float = 60.0) -> Line:
        """The first line with `part` of those after the first `since`. Raises TimeoutError."""
        return await self.output.next(part, since=since, timeout=timeout)

    # its processes

    def send_signal(self, number: signal.Signals) -> None:
        """A signal to the supervisor."""
        processes.send(self.pid, number)

    def workers(self) -> dict[int, int]:
        """Slot -> pid of the youngest worker of each slot, by the processes' titles."""
        living = self.children()
        # a worker may serve before the process between it and its template has left it to the supervisor
        between = [
            process
            for template in living
            if template.title.startswith(_TEMPLATE)
            for process in processes.children(template.pid)
        ]
        living += [worker for process in between for worker in processes.children(process.pid)]
        living.sort(key=lambda process: (process.started, process.pid))
        return {int(found[1]): process.pid for process in living if (found := _WORKER.match(process.title))}

    def children(self) -> list[ProcessInfo]:
        """The supervisor's children, oldest first: template and workers."""
        return processes.children(self.pid)

    def template(self) -> int:
        """The pid of the youngest template."""
        templates = [child.pid for child in self.children() if child.title.startswith(_TEMPLATE)]
        if not templates:
            raise HostFailed(f"no template among {self.children()}")
        return templates[-1]

    def kill(self, slot: int, number: signal.Signals = signal.SIGKILL) -> int:
        """Sends a signal to the worker of a slot and returns its pid."""
        workers = self.workers()
        if slot not in workers:
            raise HostFailed(f"no worker in slot {slot} among {self.children()}:\n{self.log_text()}")
        os.kill(workers[slot], number)
        return workers[slot]

    async def refilled(self, slot: int, old: int, timeout: float = 60.0) -> None:
        """Returns when the slot has another worker than `old`, and that one serves."""
        async with asyncio.timeout(timeout):
            while True:
                new = self.workers().get(slot, old)
                if new != old and self.output.having(f"worker {slot} (pid {new}) serves"):
                    return
                await asyncio.sleep(0.01)

    def all_processes(self) -> list[ProcessInfo]:
        """Every process that descends from it, orphans and handlers' children included."""
        return processes.with_working_directory(self.directory)

    def signal_all(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Sends each of them a signal."""
        for process in self.all_processes():
            processes.send(process.pid, number)

    # its commands

    async def command(self, *arguments: str, stdin: bytes | None = None, timeout: float = 60.0) -> CommandResult:
        """Runs `ajhost ARGUMENTS -c FILE`."""
        program = (*PROGRAM, *arguments, "-c", str(self.file))
        return await run(*program, env=self.environment, stdin=stdin, timeout=timeout)

    async def status(self) -> dict[str, Any]:
        """`ajhost status --json`. Raises HostFailed if it says nothing."""
        result = await self.command("status", "--json")
        if result.status not in (0, 1):
            raise HostFailed(f"status: {result}\n{self.log_text()}")
        answer: dict[str, Any] = json.loads(result.stdout)
        return answer

    def in_ledgers(self, *states: State) -> int:
        """How many requests are in one of these states, in any process's ledger, and nobody has taken or said them."""
        directory, count = self.runtime / "ledger", 0
        for serial in ledger_file.serials(directory):
            with contextlib.suppress(FileNotFoundError):
                ledger = ledger_file.MappedLedger(directory, serial)
                count += sum(e.state in states and not (e.revoked or e.claimed) for e in ledger.used())
                ledger.close()
        return count

    async def running(self, count: int) -> None:
        """Returns when at least so many tasks run, by the ledgers: `ajhost status` would take longer than some run."""
        while self.in_ledgers(State.STARTED) < count:  # noqa: ASYNC110  # shared memory signals nothing
            await asyncio.sleep(0.005)

    async def reload(self, timeout: float = 60.0) -> CommandResult:
        """`ajhost reload`: returns when it is decided, status 0 if the new generation serves."""
        return await self.command("reload", timeout=timeout)

    # the end

    async def _last_log(self) -> str:
        with contextlib.suppress(TimeoutError):
            await self.output.ended(timeout=2.0)
        return self.log_text()

    async def _forget(self) -> None:
        if self._log is not None:
            await self._log.close()
        if self._notify is not None:
            self._notify.close()
        self._log = self._notify = self._process = None

    async def nothing_left(self, timeout: float = 30.0) -> None:
        """Returns when no process of it is left. Raises HostFailed that names those that are."""
        try:
            async with asyncio.timeout(timeout):
                while left := self.all_processes():
                    await processes.gone(left[0].pid, timeout)
        except TimeoutError:
            raise HostFailed(f"left behind: {self.all_processes()}\n{self.log_text()}") from None

    async def destroy(self) -> None:
        """Kills whatever of it still lives, and removes its runtime directory."""
        while left := self.all_processes():
            for process in left:
                processes.send(process.pid, signal.SIGKILL)
            for process in left:
                await processes.gone(process.pid)
        if self._process is not None:
            await self._process.wait()
        await self._forget()
        shutil.rmtree(self.runtime, ignore_errors=True)

    def explain(self, error: BaseException) -> None:
        """Adds the log to a failure, if there is one."""
        if self._log is not None:
            error.add_note(f"the host's log:\n{self.log_text()}")

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.destroy()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is not None:
                self.explain(error)
                return
            if self._process is not None:
                if self._process.returncode is None and (status := await self._end()) != 0:
                    raise HostFailed(f"it ended with {status}:\n{await self._last_log()}")
                await self.nothing_left()
        finally:
            await self.destroy()
