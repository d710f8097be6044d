"""The supervisor's handle of an orphan, a living worker of an earlier start: pidfd, ledger, duplicate connection, and
whether it hangs. `roles/worker/supervisor_gone.py` decides when it leaves by itself.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
import time
from pathlib import Path

from ajhost.adapters.linux import processes
from ajhost.adapters.linux.ledger_file import GuardedLedger
from ajhost.core.fleet import WorkerState, state_number
from ajhost.core.liveness_rules import Observation, Verdict, judge
from ajhost.ledger.layout import Word
from ajhost.roles.supervisor.fd_store import InheritedConnections, Key

_log = logging.getLogger("ajhost.supervisor")


class Orphan:
    """A worker whose supervisor died.

    `connections` has the duplicates of its socket that systemd had stored, and gets those made with pidfd_getfd(2).

    :raises OSError: when the process or its file is gone. :raises LedgerError: when the file is no ledger.
    """

    def __init__(self, directory: Path, serial: int, pid: int, connections: InheritedConnections) -> None:
        self.pid = pid
        self.takeover_lock = asyncio.Lock()
        """As `WorkerProcess.takeover_lock`."""
        self.ledger = GuardedLedger(directory, serial)
        try:
            self.pidfd = os.pidfd_open(pid)
        except OSError:
            self.ledger.close()
            raise
        self._connections = connections
        self._hung = self._refused = False

    @property
    def dead(self) -> bool:
        return self.pidfd < 0 or processes.has_ended(self.pidfd)

    def kill(self) -> None:
        processes.pidfd_signal(self.pidfd, signal.SIGKILL)

    def close(self) -> None:
        """Closes the pidfd and the mapping of a process that has ended. Its file stays.

        The pidfd becomes -1, for a takeover that tries again to stop the process: the number may be another file's.
        """
        os.close(self.pidfd)
        self.pidfd = -1
        self.ledger.close()

    def resume_or_kill(self) -> None:
        """Resumes a worker that the dead supervisor may have stopped, or kills it if a takeover was interrupted.

        In the middle of a takeover the worker's ledger is right and its own memory is not, so it must not go on.
        """
        words = self.ledger.words
        if words[Word.FENCED_EPOCH] == words[Word.EPOCH] and not self.ledger.is_taken_over():
            _log.error("pid %d: the takeover of its connection was interrupted: SIGKILL", self.pid)
            self.kill()
        else:
            processes.resume(self.pidfd)

    def duplicate_socket(self) -> None:
        """Duplicates its present connection, unless there is a duplicate. Call it at every tick: it may connect anew.

        Without a duplicate, requests that are unread in the connection are lost when the worker dies.
        """
        words = self.ledger.words
        key, number = Key(self.ledger.serial, words[Word.EPOCH]), words[Word.SOCKET]
        if not number or key in self._connections or self.ledger.is_taken_over():
            return
        try:
            duplicate = processes.pidfd_getfd(self.pidfd, number)
        except OSError as error:
            if error.errno in (errno.EPERM, errno.ENOSYS) and not self._refused:
                self._refused = True
                _log.warning("pid %d: the kernel gives us no duplicate of its connection: %s", self.pid, error.strerror)
            return
        if (words[Word.EPOCH], words[Word.SOCKET]) == (key.epoch, number):
            self._connections.add_duplicate(key, socket.socket(fileno=duplicate))
        else:
            os.close(duplicate)

    def take_socket(self) -> socket.socket | None:
        """Hands out the duplicate of its present connection, once; None when there is none."""
        return self._connections.take(self.ledger)

    def give_back_socket(self, sock: socket.socket | None) -> None:
        if sock is not None:
            self._connections[Key(self.ledger.serial, self.ledger.words[Word.EPOCH])] = sock

    @property
    def hangs(self) -> bool:
        """Whether its last heartbeat is so old that it hangs. Its other signs of life are not observed."""
        heartbeat_ns = self.ledger.words[Word.HEARTBEAT]
        return bool(heartbeat_ns) and judge(Observation(time.monotonic_ns() - heartbeat_ns)) is Verdict.HUNG

    def begins_to_hang(self) -> bool:
        """Whether it hangs, and did not at the last call."""
        before, self._hung = self._hung, self.hangs
        # 0 while it does not hang: `status` then shows what its own words say, its phase and its connection
        self.ledger.words[Word.WORKER_STATE] = state_number(WorkerState.HUNG) if self._hung else 0
        return self._hung and not before
