"""Runs a real host for tests: `ajhost run` as a process, on a nats-server, with requests as a router sends them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ajhost.adapters.linux.processes import ending_with_parent
from ajhost.core.route_match import Routes
from ajhost.core.timings import ROUTER_SLACK
from ajhost.protocol.reply_encoding import error_of
from ajhost.protocol.request_headers import encode_request
from ajhost.protocol.task_record import encode_task, new_id
from ajhost.settings.environment import remove_setting_variables
from ajhost.settings.sections import NatsSettings
from ajhost.settings.toml_writer import toml_text
from ajhost.testing.run_handler import Outcome, payload_bytes

_START_PATIENCE = 30.0
_STOP_PATIENCE = 10.0
_SECOND = 1_000_000_000


class HostFailed(AssertionError):
    """The host did not start, or gave no answer; the text holds its log."""


class TestHost:
    """A host that serves handlers until `stop`.

    :param routes: route (`""` the catch-all) to `module:function`, or to a table of settings with `target`.
    :param settings: more settings by section, `{"workers": {"count": 1}}`, merged over what this class writes.
    :param path: directories of modules; by default those of this process's `sys.path` that are no library's.
    """

    __test__ = False

    def __init__(
        self,
        server: str,
        routes: Mapping[str, str | Mapping[str, Any]],
        *,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        path: Sequence[str | Path] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        shared = Path("/dev/shm")
        # a tmpfs if there is one, with a short path: that of a socket has at most 107 bytes (unix(7))
        self._directory = Path(
            tempfile.mkdtemp(prefix="ajhost-test-", dir=shared if os.access(shared, os.W_OK) else None)
        )
        self.file = self._directory / "ajhost.toml"
        self._log = self._directory / "log"
        self._server = server
        self._routes = Routes(routes)
        self._env = dict(env or {})
        self._process: subprocess.Popen[bytes] | None = None
        sections: dict[str, dict[str, Any]] = {
            "nats": {"servers": [server]},
            "python": {"path": [str(entry) for entry in (_own_path() if path is None else path)]},
            "workers": {"count": 1, "drain_timeout": 5.0},
            "runtime": {"directory": str(self._directory / "run"), "user": str(os.geteuid())},
        }
        for name, section in (settings or {}).items():
            sections[name] = {**sections.get(name, {}), **section}
        for route, handler in routes.items():
            table = {"target": handler} if isinstance(handler, str) else dict(handler)
            sections[f"handlers.{json.dumps(route)}"] = table
        self.file.write_text(toml_text(sections))
        self.file.chmod(0o600)

    def start(self) -> None:
        """Starts the host, and returns when it serves. :raises HostFailed: with the host's log."""
        address = str(self._directory / "notify")
        environ = dict(os.environ)
        remove_setting_variables(environ)  # of another host: this one would be at its server
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notifications, self._log.open("wb") as log:
            notifications.bind(address)
            notifications.settimeout(0.2)
            self._process = subprocess.Popen(
                ending_with_parent([sys.executable, "-m", "ajhost", "run", "-c", str(self.file)]),
                env={**environ, **self._env, "NOTIFY_SOCKET": address},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            end = time.monotonic() + _START_PATIENCE
            told = b""
            while b"READY=1" not in told.splitlines():
                if self._process.poll() is not None or time.monotonic() > end:
                    text = self.log
                    self.stop()
                    raise HostFailed(f"the host did not start:\n{text}")
                with contextlib.suppress(TimeoutError):
                    told = notifications.recv(4096)

    @property
    def log(self) -> str:
        """All that the host and its handlers have logged and printed so far."""
        return self._log.read_text(errors="replace")

    def call(
        self,
        type: str,
        payload: object = None,
        *,
        timeout: float = 30.0,
        tries: int = 1,
        max_tries: int = 10,
        route: str | None = None,
    ) -> Outcome:
        """Sends a task as a router would, and waits for the answer.

        :param payload: as `make_task` takes it. `timeout`: seconds until the deadline that the handler is told.
        :param route: what the router asks for; by default the configured route that serves the type.
        :raises HostFailed: no answer, with the host's log.
        """
        with ThreadPoolExecutor(1) as pool:  # the caller's thread may have a running loop
            call = self._call(type, payload_bytes(payload), timeout, tries, max_tries, route)
            return pool.submit(asyncio.run, call).result()

    async def _call(
        self, type_: str, payload: bytes, timeout: float, tries: int, max_tries: int, route: str | None
    ) -> Outcome:
        from ajhost.adapters.nats.requester import ConnectFailed, NoResponders, Requester

        now = time.time_ns()
        task = encode_task(
            id=new_id(), type=type_, queue="DEFAULT", payload=payload, created_ns=now, tried_ns=now,
            tries=tries, max_tries=max_tries,
        )  # fmt: skip
        asked = (self._routes.match(type_, type_) or "") if route is None else route
        subject, headers, body = encode_request(asked, task, now + int(timeout * _SECOND))
        began = time.monotonic()
        try:
            async with Requester(NatsSettings(servers=(self._server,))) as requester:
                reply = await requester.ask(subject, headers, body, timeout + ROUTER_SLACK)
        except (ConnectFailed, NoResponders, TimeoutError) as error:
            raise HostFailed(f"no answer on {subject}: {type(error).__name__}\n{self.log}") from error
        took = time.monotonic() - began
        if (said := error_of(reply.headers)) is not None:
            return Outcome(None, said[1], said[0] == "AJ-Terminate", took)
        return Outcome(reply.body, None, False, took)

    def stop(self) -> None:
        """Stops the host after it has finished what it holds, and removes its directory."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(_STOP_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self._directory, ignore_errors=True)


def _own_path() -> list[str]:
    """Returns the directories of `sys.path` that belong to the project and not to a library."""
    libraries = [sys.prefix, sys.base_prefix, *(sysconfig.get_path(name) for name in ("stdlib", "purelib"))]
    found = []
    for entry in ("", *sys.path):
        directory = Path(entry or os.getcwd()).resolve()
        within = any(directory.is_relative_to(library) for library in libraries if library != "/usr")
        if directory.is_dir() and not within and str(directory) not in found:
            found.append(str(directory))
    return found
