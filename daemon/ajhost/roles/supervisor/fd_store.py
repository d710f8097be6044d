"""Keeps duplicates of NATS connections in systemd's file descriptor store, each process's present one under its serial
and epoch, and takes back those of an earlier start, which this start reads to their end.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterable
from typing import NamedTuple

from ajhost.adapters.systemd.notify import Notifier
from ajhost.ledger.layout import Word
from ajhost.ledger.view import Ledger

_NAME = re.compile(r"nats-(\d+)-(\d+)")


class Key(NamedTuple):
    """Names a connection: the serial of its process, and the epoch in that process's ledger."""

    serial: int
    epoch: int


def stored_name(key: Key) -> str:
    return f"nats-{key.serial}-{key.epoch}"


class FdStore:
    """The connections in systemd's store. A new one is stored before the old is removed: a crash then leaves two."""

    def __init__(self, notifier: Notifier) -> None:
        self._notifier = notifier
        self._keys: dict[int, list[Key]] = {}

    def keep(self, key: Key, sock: socket.socket) -> None:
        """Stores the present connection of a process, and removes those before it."""
        self._notifier.store(stored_name(key), sock.fileno())
        self.forget(key.serial)
        self._keys[key.serial] = [key]

    def found(self, key: Key) -> None:
        """Takes note of a connection that an earlier start has stored."""
        self._keys.setdefault(key.serial, []).append(key)

    def forget(self, serial: int) -> None:
        """Removes the connections of a process."""
        for key in self._keys.pop(serial, []):
            self._notifier.forget(stored_name(key))


class InheritedConnections(dict[Key, socket.socket]):
    """Duplicates of the connections of processes of an earlier start, one for each key.

    `serials`: those of the ledgers that this start has found.
    """

    def __init__(self, fd_store: FdStore, serials: Iterable[int]) -> None:
        super().__init__()
        self._fd_store, self._serials = fd_store, frozenset(serials)

    def take_stored(self, stored: Iterable[tuple[str, int]]) -> list[str]:
        """Takes the connections that systemd has in its store, by name and descriptor, and leaves them there.

        Returns the names of those that belong to no ledger.
        """
        foreign = []
        for name, descriptor in stored:
            found = _NAME.fullmatch(name)
            key = None if found is None else Key(int(found[1]), int(found[2]))
            if key is None or key.serial not in self._serials:
                os.close(descriptor)
                foreign.append(name)
                continue
            if key in self:
                self[key].close()
            self[key] = socket.socket(fileno=descriptor)
            self._fd_store.found(key)
        return foreign

    def add_duplicate(self, key: Key, sock: socket.socket) -> None:
        """Takes a connection from the process itself, and stores it."""
        self[key] = sock
        self._fd_store.keep(key, sock)

    def take(self, ledger: Ledger) -> socket.socket | None:
        """Hands out the connection that the ledger's positions belong to, if any. Closes others, which had ended."""
        present = None
        for key in [k for k in self if k.serial == ledger.serial]:
            sock = self.pop(key)
            if key.epoch == ledger.words[Word.EPOCH]:
                present = sock
            else:
                sock.close()
        return present
