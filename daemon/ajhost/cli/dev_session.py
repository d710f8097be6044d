"""A session of `ajhost dev`: it runs a NATS server and a host, whose settings it writes, watches the source files,
reloads the host, and prints a line for each task. Keeps the NATS context of `--context`; refuses a name that is taken.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from ajhost.adapters.linux.proc import children
from ajhost.adapters.linux.processes import ending_with_parent
from ajhost.adapters.nats.dev_client import Passed, task_tap
from ajhost.adapters.nats.server_process import EmbeddedNatsServer
from ajhost.cli.dev_directory import SETTINGS, make_place
from ajhost.cli.options import BadConfiguration, load_settings
from ajhost.cli.output import echo, echo_error
from ajhost.protocol.exact_json import is_json
from ajhost.protocol.reply_encoding import error_of
from ajhost.protocol.safe_text import printable
from ajhost.protocol.secret_masking import without_userinfo
from ajhost.settings.environment import remove_setting_variables
from ajhost.settings.nats_context import context_file
from ajhost.settings.toml_writer import development_sections, toml_text

DRAIN = 0.3
"""Seconds that running tasks have after Ctrl-C, so that the session ends within one second."""
STOP_PATIENCE = 0.4
"""Seconds after that until the session kills the host."""
_RELOAD_PATIENCE = 600.0
_LONG_IMPORT = 2.0
"""Seconds of an import after which a further change of a file aborts it."""
_OWN_TABLES = ("handlers", "nats", "python", "runtime", "workers")
"""Tables that the host has from the session alone, which has merged the variables for them into settings of `-c`."""
_RESULT_SHOWN = 100
_LOOK = 0.1
_MADE_BY = "ajhost dev, process "
"""The beginning of a session's description of its context; the session's pid follows."""


@dataclass
class DevSession:
    """One run of `ajhost dev`, by its options. `handlers`: route to `module:function`, if `config` is None."""

    project: Path
    config: Path | None
    handlers: dict[str, str]
    lifespan: str | None
    server: str | None
    context: str | None
    workers: int
    debug: bool
    _stop: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _changed: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    """Set when a file of the project has changed."""
    _place: Path = field(init=False)
    """The host's directory, with its settings."""
    _url: str = field(init=False)
    _paths: list[Path] = field(init=False)
    """The entries in front of the host's `sys.path`."""

    async def run(self) -> int:
        """Serves until SIGINT or SIGTERM. :raises BadConfiguration: the settings named by `-c` are wrong."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop.set)
        self._place = make_place(self.project)
        try:
            async with self._nats() as url:
                self._url = url
                context = nats_context(self.context, url) if self.context else contextlib.nullcontext()
                self._write_settings()
                with context:
                    async with task_tap(url, _show):
                        await self._serve()
        finally:
            shutil.rmtree(self._place, ignore_errors=True)
        return 0

    @contextlib.asynccontextmanager
    async def _nats(self) -> AsyncIterator[str]:
        if self.server is not None:
            yield self.server
            return
        server = EmbeddedNatsServer(self._place)
        server.start()  # in this thread: PR_SET_PDEATHSIG kills the server when the thread that started it ends
        try:
            yield server.url
        finally:
            await asyncio.to_thread(server.stop)

    # settings

    def _write_settings(self) -> None:
        """Writes the host's settings file.

        :raises BadConfiguration: the settings named by `-c` are wrong.
        """
        sections: dict[str, dict[str, Any]] = {}
        if self.config is None:
            for route, target in self.handlers.items():
                sections[f"handlers.{orjson.dumps(route).decode()}"] = {"target": target}
            self._paths = [path for path in (self.project, self.project / "src") if path.is_dir()]
        else:
            settings = load_settings(self.config)
            sections = development_sections(settings)
            self._paths = list(settings.python.path)
        if self.lifespan is not None:
            sections["python"] = {"lifespan": self.lifespan}
        sections.setdefault("python", {})["path"] = self._paths
        sections.setdefault("workers", {}).update(count=self.workers, drain_timeout=DRAIN)
        sections["nats"] = {"servers": [self._url], "catchall": True}
        sections["runtime"] = {"directory": self._place / "run", "user": str(os.geteuid())}
        file = self._place / SETTINGS
        new = file.with_suffix(".new")
        new.write_text(toml_text(sections))
        new.chmod(0o600)
        new.replace(file)

    # the host

    async def _serve(self) -> None:
        self._tell_start()
        watching = asyncio.create_task(self._watch())
        try:
            good = True
            while not self._stop.is_set():
                if not good or await self._attend(await self._start_host()):
                    echo_error("dev: nothing is served; save a file to try again")
                    await self._until(self._changed.wait())
                self._changed.clear()
                good = self._try_settings()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    def _try_settings(self) -> bool:
        """Writes the host's settings anew, or prints their problems. Returns whether they are good."""
        try:
            self._write_settings()
        except BadConfiguration as error:
            echo_error(str(error))
            return False
        return True

    def _tell_start(self) -> None:
        known = "" if self.context is None else f", the NATS context {self.context}"
        echo(f"dev: NATS is at {without_userinfo(self._url)}{known}")
        if self.config is None:
            for route, target in self.handlers.items():
                echo(f"dev: {route or 'the catch-all'} is served by {target}")
        else:
            echo(f"dev: serving what {self.config} says")
        echo("dev: from a second terminal, in this directory: ajhost call TYPE PAYLOAD; Ctrl-C ends")

    async def _start_host(self) -> asyncio.subprocess.Process:
        environ = dict(os.environ)
        remove_setting_variables(environ, _OWN_TABLES)
        module = "ajhost.cli.debug_host" if self.debug else "ajhost"
        arguments = [] if self.debug else ["run"]
        return await asyncio.create_subprocess_exec(
            *ending_with_parent([sys.executable, "-m", module, *arguments, "-c", str(self._place / SETTINGS)]),
            stdin=None if self.debug else asyncio.subprocess.DEVNULL,
            # a debugger reads the terminal, so its process must be in the terminal's foreground process group
            start_new_session=not self.debug,
            env=environ,
        )

    async def _attend(self, host: asyncio.subprocess.Process) -> bool:
        """Reloads the host at each change of a file, until the session or the host ends.

        Ends a host with `--debug` instead, and the caller starts another one.

        :returns: whether the host ended by itself.
        """
        ended = asyncio.create_task(host.wait())
        try:
            while True:
                await self._until(self._changed.wait(), ended)
                if self._stop.is_set() or ended.done():
                    return not self._stop.is_set()
                self._changed.clear()
                if self.debug or not await self._reload(host):
                    echo("dev: a file has changed; starting again")
                    return False
        finally:
            await _end(host)
            await ended

    async def _until(self, change: Coroutine[Any, Any, Any], ended: asyncio.Task[int] | None = None) -> None:
        """Returns when `change` or `ended` is done, or when the session is to stop."""
        own = [asyncio.ensure_future(change), asyncio.ensure_future(self._stop.wait())]
        try:
            await asyncio.wait([*own, *filter(None, [ended])], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in own:
                task.cancel()

    # reload

    async def _watch(self) -> None:
        from watchfiles import awatch

        places = {self.project, *self._paths}
        if self.config is not None:
            places |= {self.config.parent}
        outermost = [p for p in places if not any(p != other and p.is_relative_to(other) for other in places)]
        async for _ in awatch(
            *outermost,
            watch_filter=lambda _, path: is_source(Path(path), outermost),
            debounce=100,
            step=30,
            ignore_permission_denied=True,
        ):
            self._changed.set()

    async def _reload(self, host: asyncio.subprocess.Process) -> bool:
        """Has the host reload, and prints the decision. Returns at once when the session is to stop.

        :returns: False if the host does not listen yet, as its first import takes long: the caller starts another.
        """
        from ajhost.roles.control_client import control
        from ajhost.roles.status_reader import NotRunning

        began = time.monotonic()
        taken = False
        if self._try_settings():
            while host.returncode is None and not self._stop.is_set():
                try:
                    asking = asyncio.create_task(
                        asyncio.to_thread(control, self._place / "run", _RELOAD_PATIENCE, {"ask": "reload"})
                    )
                    await self._decided(host, asking, began + _LONG_IMPORT)
                    taken = asking.done() and asking.result()[0]
                    break
                except NotRunning:
                    if time.monotonic() > began + _LONG_IMPORT:
                        return False
                    await asyncio.sleep(_LOOK)
                except (TimeoutError, OSError) as error:
                    echo_error(f"the host does not answer: {error}")
                    break
        if taken:
            echo(_coloured("32", f"dev: reloaded in {time.monotonic() - began:.1f} s"))
        elif not self._stop.is_set():
            echo(_coloured("31", "dev: not reloaded, the last good code serves on"))
        return True

    async def _decided(self, host: asyncio.subprocess.Process, asking: asyncio.Task[Any], long: float) -> None:
        """Returns when the host has decided, or the session is to stop.

        If a file changes after `long` (monotonic time) while the host still imports, aborts the template that imports.
        The host then rejects the reload, with the stack of the import.
        """
        # after a stop no caller awaits the task, and asyncio would report its exception
        asking.add_done_callback(lambda task: task.cancelled() or task.exception())
        is_aborted = False
        while not asking.done() and not self._stop.is_set():
            await asyncio.wait({asking}, timeout=_LOOK)
            if self._changed.is_set() and time.monotonic() > long and not is_aborted:
                is_aborted = True
                templates = [pid for pid in children(host.pid) if _title(pid).startswith("ajhost: template")]
                for pid in sorted(templates)[1:]:  # the first one serves
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGABRT)


async def _end(host: asyncio.subprocess.Process) -> None:
    """Ends the host: SIGTERM, a second SIGTERM to hurry it, then SIGKILL for it and its workers."""
    for patience in (DRAIN, STOP_PATIENCE):
        if host.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            host.send_signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(host.wait()), patience)
    if host.returncode is None:
        workers = children(host.pid)
        for pid in (host.pid, *workers):  # the supervisor first, since it replaces dead workers
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await host.wait()


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:
        return ""


def is_source(path: Path, watched: Sequence[Path]) -> bool:
    """Whether what changed is Python or TOML of the project, not of an environment, a cache or an editor.

    Only the path below a `watched` directory counts, since the project itself may be in a hidden directory. A directory
    with Python in it is a package that has appeared: inotify(7) tells nothing of files that came with it.
    """
    below = next((path.relative_to(place) for place in watched if path.is_relative_to(place)), path)
    if any(part.startswith(".") or part in ("__pycache__", "node_modules", "site-packages") for part in below.parts):
        return False
    if path.suffix in (".py", ".toml"):
        return not path.name.startswith("#")
    return path.is_dir() and next(path.rglob("*.py"), None) is not None


def _coloured(code: str, text: str) -> str:
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not sys.stdout.isatty()
    return text if plain else f"\x1b[{code}m{text}\x1b[0m"


def _show(passed: Passed) -> None:
    """Prints one line for a task: time of day, type and id, outcome, duration, result or error."""
    try:
        task = orjson.loads(passed.task)
        about = f"{task['type']} {task['id']}" + (f" try {task['tries']}" if task.get("tries", 1) != 1 else "")
    except (ValueError, KeyError, TypeError):
        about = f"{passed.subject}, which was no task"
    if (error := error_of(passed.headers)) is not None:
        outcome, said = _coloured("31", error[0]), printable(error[1])
    else:
        outcome, said = _coloured("32", "complete"), _result(passed.body)
    moment = time.strftime("%H:%M:%S")
    echo(f"{moment} {printable(about)}: {outcome} in {passed.seconds * 1000:.0f} ms  {said}")


def _result(body: bytes) -> str:
    if not is_json(body) and not body.isascii():
        return f"{len(body)} bytes"
    text = printable(body.decode(errors="replace"))
    return text if len(text) <= _RESULT_SHOWN else f"{text[:_RESULT_SHOWN]}... ({len(body)} bytes)"


# -- the NATS context of `--context NAME`, by which `ajc` and `nats` find the server -----------------------------------


class ContextInUse(Exception):
    """The context exists already and is not a dead session's. The text says whose it is, and what to do."""


@contextlib.contextmanager
def nats_context(name: str, url: str) -> Iterator[Path]:
    """Writes the context, and removes it at the end. Replaces one that a killed session has left.

    :raises ContextInUse: a context of this name exists that no session has written, or whose session runs.
    """
    file = context_file(name, os.environ)
    _check_free(file)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = file.with_suffix(f".{os.getpid()}")
    # the URL may have a password
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as written:
        json.dump({"description": f"{_MADE_BY}{os.getpid()}", "url": url}, written)
    new.replace(file)
    try:
        yield file
    finally:
        if _owner(file) == os.getpid():
            file.unlink(missing_ok=True)


def _check_free(file: Path) -> None:
    if not os.path.lexists(file):
        return
    owner = _owner(file)
    if owner is None:
        raise ContextInUse(f"{file} is there already: give another name to --context, or leave it out")
    if owner != os.getpid() and Path(f"/proc/{owner}").exists():
        raise ContextInUse(f"{file} is of another ajhost dev, process {owner}: give another name to --context")


def _owner(file: Path) -> int | None:
    """Returns the pid of the session that wrote the context; None for any other writer."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        said = str(json.loads(file.read_text()).get("description"))
        if said.startswith(_MADE_BY):
            return int(said.removeprefix(_MADE_BY))
    return None
