"""Asks a running host over its sockets, for commands: to do something, or for its status if the user may only look."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from ajhost.adapters.linux import runtime_directory
from ajhost.core.status_report import StatusReport
from ajhost.core.timings import LOCAL_CLIENT_LIMIT, POLL_INTERVAL
from ajhost.roles.status_reader import NotRunning, nobody
from ajhost.roles.supervisor import state_file

ATTEMPTS = "attempts"
"""The key of the attempts in what the socket `view` sends, beside those of the status."""
_VIEW_TRIES = 20
_NO_VIEW = "the host gave no status: it stops, or too many ask at once"


def view(directory: Path) -> StatusReport:
    """Returns the status as the supervisor sends it to members of its group, who may not read the shared files.

    :raises NotRunning: no host listens. :raises OSError: the socket may not be used. :raises TimeoutError: no answer.
    """
    try:
        return StatusReport.from_object(_view(directory))
    except (KeyError, TypeError):
        raise NotRunning(_NO_VIEW) from None


def view_attempts(directory: Path) -> list[dict[str, Any]]:
    """Returns the attempts that did not complete, newest first, as the supervisor sends them to its group.

    Raises what `view` does.
    """
    attempts: list[dict[str, Any]] = _view(directory).get(ATTEMPTS, [])
    return attempts


def _view(directory: Path) -> dict[str, Any]:
    """Returns what the socket `view` sends. Tries again if the host turns it away, since too many commands read."""
    for _ in range(_VIEW_TRIES):
        place = directory / runtime_directory.VIEW
        with _connected(place, LOCAL_CLIENT_LIMIT) as sock, sock.makefile("rb") as stream:
            text = stream.read()
        if text:
            break
        time.sleep(POLL_INTERVAL)
    try:
        told = orjson.loads(text)
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise NotRunning(_NO_VIEW)
    return told


def settings_of(directory: Path) -> Path | None:
    """Returns the settings file on which the host of the directory runs; None if that is unknown."""
    state = state_file.read(directory)
    return Path(state.settings) if state is not None and state.settings else None


def control(directory: Path, timeout: float, asked: dict[str, object]) -> tuple[bool, str]:
    """Asks the host for something. Returns whether it was done, and a text for people.

    :raises NotRunning: no host listens. :raises TimeoutError: no decision within `timeout` seconds.
    """
    with _connected(directory / runtime_directory.CONTROL, timeout) as sock:
        with contextlib.suppress(BrokenPipeError):  # the host turned this command away; its answer says why
            sock.sendall(orjson.dumps({name: _sendable(value) for name, value in asked.items()}) + b"\n")
        with sock.makefile("rb") as lines:
            line = lines.readline()
    if not line:
        raise NotRunning("the host ended before it decided")
    body = orjson.loads(line)
    return bool(body["taken"]), str(body["text"])


@contextlib.contextmanager
def _connected(place: Path, timeout: float) -> Iterator[socket.socket]:
    """Connects to one of the host's sockets. :raises NotRunning: no host listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(timeout)
        try:
            sock.connect(str(place))
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise NotRunning(nobody(place.parent)) from error
        yield sock


def _sendable(value: object) -> object:
    """Returns a value in a form for JSON, which cannot express arguments of a command that are no UTF-8."""
    if isinstance(value, str | Path):
        return str(value).encode(errors="replace").decode()
    return value
