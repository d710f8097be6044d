"""Ledger files: made whole or not at all, and locked for exactly as long as their owner lives."""

from __future__ import annotations

import errno
import os
import resource
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ajhost.adapters.linux import ledger_file
from ajhost.adapters.linux.ledger_file import LockedLedger, MappedLedger
from ajhost.ledger.layout import Geometry, Identity, LedgerError, State, Word, geometry_for
from ajhost.ledger.receive_buffer import ReceiveBuffer
from ajhost.roles.shared_queue.ledger_cache import LedgerCache

GEOMETRY = Geometry(8, 4096, 8192)
FRAME = b"MSG s 1 r 2\r\nhi\r\n"


def make(directory: Path, serial: int) -> None:
    ledger_file.make(directory, GEOMETRY, Identity(serial, 3, 2))


@contextmanager
def process(act: Callable[[], object]) -> Iterator[int]:
    """A forked child that does `act`, says so, and stays until it is killed. Yields its pid when it has said so."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            act()
            os.write(writer, b".")
            signal.pause()
        finally:
            os._exit(1)
    os.close(writer)
    try:
        assert os.read(reader, 1) == b".", "the child failed"
        yield pid
    finally:
        os.close(reader)
        kill(pid)


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def test_a_file_that_was_made_is_a_ledger_with_room_for_all_of_it(tmp_path: Path) -> None:
    make(tmp_path, 5)
    ledger = MappedLedger(tmp_path, 5)
    assert (ledger.serial, ledger.slot, ledger.generation) == (5, 3, 2)
    assert not ledger.in_use()
    ledger.close()
    status = ledger_file.path_of(tmp_path, 5).stat()
    assert status.st_size == GEOMETRY.size
    assert status.st_blocks * 512 >= GEOMETRY.size, "a page that is not there would be a SIGBUS later"
    assert status.st_mode & 0o777 == 0o600


def test_a_serial_is_used_once(tmp_path: Path) -> None:
    make(tmp_path, 5)
    ledger = MappedLedger(tmp_path, 5)
    ledger.words[Word.EPOCH] = 77
    with pytest.raises(FileExistsError):
        make(tmp_path, 5)
    assert MappedLedger(tmp_path, 5).words[Word.EPOCH] == 77, "what was there is untouched"


def test_a_directory_without_room_is_an_error_at_once_and_nothing_is_left(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (GEOMETRY.size // 2, hard))
    try:
        with pytest.raises(OSError, match="too large") as caught:
            make(tmp_path, 5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert caught.value.errno in (errno.EFBIG, errno.ENOSPC)
    assert list(tmp_path.iterdir()) == []


def test_what_the_owner_writes_others_see_and_the_other_way_round(tmp_path: Path) -> None:
    make(tmp_path, 5)
    owner, other = LockedLedger(tmp_path, 5), MappedLedger(tmp_path, 5)
    index = owner.receive_copy(FRAME, 1)
    assert index is not None
    assert other.frame(index) == FRAME
    assert other.state(index) == (1, State.RECEIVED)
    other.revoke(index, 1)
    assert owner.is_revoked(index, 1)


def test_serials_are_those_of_ledgers_oldest_first(tmp_path: Path) -> None:
    for serial in (30, 4, 200):
        make(tmp_path, serial)
    for name in ("7.foreign", "x.ledger", "9", "-3.ledger"):
        (tmp_path / name).touch()
    assert ledger_file.serials(tmp_path) == [4, 30, 200]


def test_a_removed_file_is_gone_and_removing_it_again_is_no_error(tmp_path: Path) -> None:
    make(tmp_path, 5)
    kept = MappedLedger(tmp_path, 5)
    ledger_file.remove(tmp_path, 5)
    ledger_file.remove(tmp_path, 5)
    assert ledger_file.serials(tmp_path) == []
    assert kept.serial == 5, "who has it mapped keeps it"
    with pytest.raises(FileNotFoundError):
        MappedLedger(tmp_path, 5)


@pytest.mark.parametrize("size", [0, 1, 4095, 4097, GEOMETRY.size - 8, GEOMETRY.size])
def test_a_foreign_file_is_said_to_be_none_and_can_be_put_aside(tmp_path: Path, size: int) -> None:
    ledger_file.path_of(tmp_path, 5).write_bytes(bytes(size))
    with pytest.raises(LedgerError):
        MappedLedger(tmp_path, 5)
    aside = ledger_file.quarantine(tmp_path, 5)
    assert aside.stat().st_size == size
    assert ledger_file.serials(tmp_path) == []


# --- the lock


def test_a_file_is_locked_by_its_owner_until_the_owner_is_dead(tmp_path: Path) -> None:
    make(tmp_path, 5)
    assert ledger_file.locked_by(tmp_path, 5) is None
    with process(lambda: keep(LockedLedger(tmp_path, 5))) as pid:
        assert ledger_file.locked_by(tmp_path, 5) == pid
        with pytest.raises(BlockingIOError):
            LockedLedger(tmp_path, 5)
        assert ledger_file.locked_by(tmp_path, 5) == pid
        kill(pid)
        assert ledger_file.locked_by(tmp_path, 5) is None


def test_a_child_of_the_owner_does_not_keep_its_lock(tmp_path: Path) -> None:
    make(tmp_path, 5)
    reader, writer = os.pipe()

    def own_and_fork() -> None:
        keep(LockedLedger(tmp_path, 5))
        child = os.fork()
        if child == 0:
            signal.pause()
            os._exit(0)
        os.write(writer, b"%d\n" % child)

    with process(own_and_fork) as pid:
        child = int(os.read(reader, 20))
        try:
            kill(pid)
            os.kill(child, 0)  # it lives
            assert ledger_file.locked_by(tmp_path, 5) is None
        finally:
            os.kill(child, signal.SIGKILL)
    os.close(reader)
    os.close(writer)


def test_an_owner_that_pulls_its_own_tokens_keeps_its_lock(tmp_path: Path) -> None:
    """Closing any descriptor of a file drops the process's record locks on it: the file must not be opened again."""
    make(tmp_path, 5)
    make(tmp_path, 6)

    def look_up() -> None:
        owner = keep(LockedLedger(tmp_path, 5))
        ledgers = LedgerCache(tmp_path, owner)
        assert ledgers.get(5) is owner
        assert ledgers.get(6) is not None

    with process(look_up) as pid:
        assert ledger_file.locked_by(tmp_path, 5) == pid


_kept: list[object] = []


def keep(owner: LockedLedger) -> LockedLedger:
    """Keeps the descriptor open for as long as the process lives, as a worker does."""
    _kept.append(owner)
    return owner


# --- maps of others


def test_a_map_is_made_once_and_the_oldest_goes_first(tmp_path: Path) -> None:
    for serial in range(1, 5):
        make(tmp_path, serial)
    ledgers = LedgerCache(tmp_path, limit=3)
    first = [ledgers.get(serial) for serial in (1, 2, 3)]
    assert [ledgers.get(serial) for serial in (1, 2, 3)] == first
    assert ledgers.get(4) is not None
    again = ledgers.get(1)
    assert again is not None
    assert again is not first[0]
    assert again.serial == 1


def test_a_file_that_is_not_there_takes_no_other_ones_place(tmp_path: Path) -> None:
    make(tmp_path, 1)
    ledgers = LedgerCache(tmp_path, limit=1)
    first = ledgers.get(1)
    assert ledgers.get(2) is None
    ledger_file.path_of(tmp_path, 3).write_bytes(b"x")
    assert ledgers.get(3) is None
    assert ledgers.get(1) is first


@pytest.fixture
def memory_directory() -> Iterator[Path]:
    """On a tmpfs, as a runtime directory is: other file systems set more aside than they are asked for."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        yield Path(name)


@pytest.mark.parametrize("max_payload", [8 << 20, 64 << 20])
def test_a_server_that_takes_much_costs_no_more_until_much_comes_and_no_more_after_it(
    memory_directory: Path, max_payload: int
) -> None:
    def taken() -> int:
        return ledger_file.path_of(memory_directory, 5).stat().st_blocks * 512

    usual, much = geometry_for(1016, 1 << 20), geometry_for(1016, max_payload)
    assert much.prepared_size == usual.prepared_size == usual.size
    ledger_file.make(memory_directory, much, Identity(5, 3, 2))
    owner = LockedLedger(memory_directory, 5)
    buffer = ReceiveBuffer(owner)
    buffer.reset()
    at_first, frame = taken(), b"x" * (max_payload - 4096)
    buffer.free_space(0)[:5] = frame[:5]
    buffer.commit(5)
    buffer.free_space(len(frame))[: len(frame) - 5] = frame[5:]
    buffer.commit(len(frame) - 5)
    assert buffer.unconsumed() == frame
    index = owner.receive(buffer.place(), len(frame), 1)
    buffer.consume(len(frame))
    assert owner.keep(index, frame)
    assert owner.frame(index) == frame
    buffer.free_space(0)
    assert taken() > at_first + max_payload // 3, "it waits in the frame store"
    owner.release(index)
    assert taken() <= at_first + (1 << 16)


def test_what_a_dead_owner_was_receiving_finds_room_too(tmp_path: Path) -> None:
    ledger_file.make(tmp_path, geometry_for(16, 8 << 20), Identity(5, 3, 2))
    owner = LockedLedger(tmp_path, 5)
    buffer = ReceiveBuffer(owner)
    buffer.reset()
    buffer.free_space(0)[:5] = b"begin"
    buffer.commit(5)
    heir = ReceiveBuffer(MappedLedger(tmp_path, 5))
    heir.resume(0)
    rest = heir.free_space(8 << 20)
    rest[-3:] = b"end"
    heir.commit(len(rest))
    data = heir.unconsumed()
    assert (len(data), data[:5], data[-3:]) == (8 << 20, b"begin", b"end")
