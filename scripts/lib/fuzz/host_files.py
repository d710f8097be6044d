"""The files of a runtime directory, which handlers' code may have written over, and those who read them."""

from __future__ import annotations

import contextlib
import io
import json
import random
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import NoReturn

import orjson

from ajhost.adapters.linux import runtime_directory
from ajhost.adapters.linux.stats_files import DIRECTORY as STATS
from ajhost.adapters.linux.stats_files import StatsFile
from ajhost.cli.output import to_json
from ajhost.cli.status import print_once
from ajhost.roles import status_reader
from ajhost.roles.recent_attempts import DIRECTORY as ATTEMPTS
from ajhost.roles.recent_attempts import RecentAttempts, recent_attempts
from ajhost.roles.stats_history import StatsHistory
from ajhost.roles.supervisor import state_file
from ajhost.roles.supervisor.state_file import HostState
from scripts.lib.fuzz.mutator import mutated, overwritten

Change = Callable[[random.Random, Sequence[bytes]], bytes]
ROUTES = ("", "email:new")


class HostFiles:
    """A runtime directory as a host leaves it, whose lock is held. One file of it is changed at a time."""

    def __init__(self, directory: Path) -> None:
        self._directory, self._lock = directory / "run", -1

    def make(self) -> None:
        """Writes the files, the first time."""
        if self._lock >= 0:
            return
        run = self._directory
        self._lock = runtime_directory.prepare(run)
        assert runtime_directory.lock(self._lock)
        runtime_directory.write_file(run, runtime_directory.LOCK, b"12345\n")
        state_file.write(run, HostState(12345, 2, True, 4, {2: ROUTES}, last_death="worker 1 died", died_at=1.7e9))
        (run / "ledger").mkdir()
        (run / STATS).mkdir(mode=0o700)
        writer = StatsFile(run / STATS).writer(ROUTES)
        attempts = RecentAttempts(run)
        for number in range(9):
            writer.completed([(1, 0.1, 2.0)])
            writer.failed(0, "handler error", 0.0, 0.1)
            attempts.add(id=f"{number}", type="email:new", tries=1, outcome="failed", reason="handler error", text="x")
        StatsHistory(run).sample([])

    def reader(self, name: str) -> Callable[[bytes], None]:
        """Reads everything after that file has got other content."""

        def read(data: bytes) -> None:
            path = self._directory / name
            with path.open("r+b") as file:  # as a stray write: the same file
                whole = file.read()
                file.seek(0)
                file.truncate()
                file.write(data)
            try:
                self._look()
            finally:
                with path.open("r+b") as file:
                    file.truncate()
                    file.write(whole)

        return read

    def change(self, name: str, change: Change) -> Change:
        """The change of what is in that file, which is made when it is first asked for."""

        def changed(rng: random.Random, _: Sequence[bytes]) -> bytes:
            self.make()
            return change(rng, ((self._directory / name).read_bytes(),))

        return changed

    def _look(self) -> None:
        report = status_reader.read_status(self._directory)
        with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO())):
            print_once(report)
        json.loads(to_json(report.as_object()), parse_constant=_refuse)
        orjson.dumps(report.as_object())
        for attempt in recent_attempts(self._directory):
            datetime.fromtimestamp(attempt["at"]).astimezone()
            attempt["text"].removeprefix(attempt["reason"])


def _refuse(name: str) -> NoReturn:
    raise AssertionError(f"{name} is not JSON")


CHANGES: dict[str, Change] = {
    state_file.NAME: mutated,
    runtime_directory.LOCK: mutated,
    f"{STATS}/history.json": mutated,
    f"{STATS}/0.stats": overwritten,
    f"{ATTEMPTS}/0": mutated,
}
"""By the file."""
