"""Log records as a journal reads them, what a journal that does not read costs, and the lines of a terminal."""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ajhost.adapters.logs import log_outputs
from ajhost.adapters.logs.log_record import CURRENT_TASK, TaskLabels
from ajhost.adapters.logs.prints import redirect_prints
from ajhost.adapters.systemd import journald
from ajhost.adapters.systemd.journald import Journal, JournalHandler
from ajhost.protocol.safe_text import clean

DAEMON = str(Path(__file__).parents[3] / "daemon")
APPLICATION = logging.getLogger("application")
SEED = "SU" + "A" * 56


def parse(data: bytes) -> dict[str, str]:
    """One record in journald's native format (https://systemd.io/JOURNAL_NATIVE_PROTOCOL/)."""
    fields = {}
    while data:
        line, _, data = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (size,) = struct.unpack_from("<Q", data)
            value = data[8 : 8 + size]
            assert data[8 + size : 9 + size] == b"\n"
            data = data[9 + size :]
        assert re.fullmatch(rb"[A-Z_0-9]+", name), name
        fields[name.decode()] = value.decode()
    return fields


class Running:
    """A handler's run with these labels."""

    def __init__(self, labels: TaskLabels) -> None:
        self._labels = labels

    def labels(self) -> TaskLabels:
        """What records of it bear."""
        return self._labels


class Reader:
    """A datagram socket where journald's would be."""

    def __init__(self, path: Path) -> None:
        self.address = str(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind(self.address)

    def read(self) -> list[dict[str, str]]:
        """The records that wait, those in sealed files included."""
        records: list[dict[str, str]] = []
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(self.socket, 1 << 20, 1)
            except BlockingIOError:
                return records
            for fd in fds:
                with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as file:
                    data = bytes(file)
                os.close(fd)
            records.append(parse(data))


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """Reads what is logged."""
    reading = Reader(tmp_path / "journal")
    yield reading
    reading.socket.close()


@pytest.fixture
def log(reader: Reader) -> Iterator[logging.Logger]:
    """A logger that writes to `reader`."""
    handler = JournalHandler(Journal({"SYSLOG_IDENTIFIER": "ajhost-worker-2", "AJ_SLOT": "2"}, reader.address))
    logger = logging.Logger("tests.journald")  # noqa: LOG001  # outside of the hierarchy, where pytest listens
    logger.addHandler(handler)
    yield logger
    handler.close()


class Awkward:
    """Something that cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


def test_a_record_that_an_application_made_oddly_is_written_and_fails_nobody(
    log: logging.Logger, reader: Reader
) -> None:
    for given in ({"name": object()}, {"pathname": None}, {"exc_info": (1, 2, 3)}):
        log.handle(logging.makeLogRecord({"msg": "text", "levelno": 40, **given}))
    assert [record["MESSAGE"] for record in reader.read()] == ["text"] * 3


def test_a_record_has_its_text_its_place_and_its_process(log: logging.Logger, reader: Reader) -> None:
    log.warning("%d of %s", 3, "four")
    (record,) = reader.read()
    line = int(record.pop("CODE_LINE"))
    assert Path(__file__).read_text().splitlines()[line - 1].strip() == 'log.warning("%d of %s", 3, "four")'
    assert record == {
        "SYSLOG_IDENTIFIER": "ajhost-worker-2",
        "AJ_SLOT": "2",
        "MESSAGE": "3 of four",
        "PRIORITY": "4",
        "LOGGER": "tests.journald",
        "CODE_FILE": __file__,
        "CODE_FUNC": "test_a_record_has_its_text_its_place_and_its_process",
    }


@pytest.mark.parametrize(
    ("level", "priority"),
    [(10, "7"), (5, "7"), (20, "6"), (25, "5"), (30, "4"), (40, "3"), (50, "2"), (60, "2")],
)
def test_levels_are_syslog_priorities(log: logging.Logger, reader: Reader, level: int, priority: str) -> None:
    log.setLevel(1)
    log.log(level, "x")
    assert [record["PRIORITY"] for record in reader.read()] == [priority]


def test_a_record_names_the_task_that_it_is_about(log: logging.Logger, reader: Reader) -> None:
    log.info(
        "done",
        extra={"aj_task": "T1", "aj_type": "a:b", "aj_route": "a:", "aj_tries": 3, "aj_duration": 0.25},
    )
    (record,) = reader.read()
    assert {name: value for name, value in record.items() if name.startswith("AJ_")} == {
        "AJ_SLOT": "2",
        "AJ_TASK": "T1",
        "AJ_TYPE": "a:b",
        "AJ_ROUTE": "a:",
        "AJ_TRIES": "3",
        "AJ_DURATION": "0.250000",
    }


def test_what_a_handler_logs_bears_the_name_of_its_task(log: logging.Logger, reader: Reader) -> None:
    token = CURRENT_TASK.set(Running(TaskLabels("T2", "mail", "", 1, 0.25)))
    try:
        log.info("from a handler")
        log.info("about another", extra={"aj_task": "T9"})
    finally:
        CURRENT_TASK.reset(token)
    log.info("from elsewhere")
    records = reader.read()
    assert [record.get("AJ_TASK") for record in records] == ["T2", "T9", None]
    assert [record.get("AJ_DURATION") for record in records] == ["0.250000", "0.250000", None]


def test_a_traceback_is_part_of_one_record(log: logging.Logger, reader: Reader) -> None:
    try:
        raise ValueError("broken\nin two lines")
    except ValueError:
        log.exception("it failed")
    (record,) = reader.read()
    lines = record["MESSAGE"].split("\n")
    assert lines[0] == "it failed"
    assert lines[1] == "Traceback (most recent call last):"
    assert lines[-2:] == ["ValueError: broken", "in two lines"]


def test_whatever_is_logged_arrives_somehow(log: logging.Logger, reader: Reader) -> None:
    log.info("%d", "no number")
    log.info(Awkward())
    log.info("%s", Awkward())
    log.info("one", "too many")
    log.info("half a pair \ud800 and a zero \0")
    log.info("", extra={"aj_task": Awkward()})
    messages = [record["MESSAGE"] for record in reader.read()]
    assert messages[0].startswith("%d (its arguments do not fit: ")
    assert messages[1] == "<Awkward> (its arguments do not fit: no)"
    assert messages[2] == "%s (its arguments do not fit: no)"
    assert messages[3].startswith("one (its arguments do not fit")
    assert messages[4] == "half a pair \\ud800 and a zero \\x00"
    assert len(messages) == 6


def test_a_value_cannot_forge_a_field(log: logging.Logger, reader: Reader) -> None:
    log.info("text\nPRIORITY=0\n_UID=0", extra={"aj_type": "a\nAJ_TASK=forged"})
    (record,) = reader.read()
    assert record["MESSAGE"] == "text\nPRIORITY=0\n_UID=0"
    assert record["AJ_TYPE"] == "a\nAJ_TASK=forged"
    assert record["PRIORITY"] == "6"
    assert "AJ_TASK" not in record


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("nats://user:secret@host:4222", "nats://***@host:4222"),
        ("tls://t0ken@host", "tls://***@host"),
        ("nats://user:p@ss@a:1,nats://b:2", "nats://***@a:1,nats://b:2"),
        (f"seed {SEED}, and SUCH", "seed ***, and SUCH"),
        ("mail to ada@example.net", "mail to ada@example.net"),
        ("https://example.net/@ada", "https://example.net/@ada"),
        ("bell \a, escape \x1b[31m, next line \x85", "bell \\x07, escape \\x1b[31m, next line \\x85"),
        (
            "no width \u200b\U000e0041, but \U0001f469\u200d\U0001f680",
            "no width \\u200b\\U000e0041, but \U0001f469\u200d\U0001f680",
        ),
        ("tab\tand\nline stay, déjà vu too", "tab\tand\nline stay, déjà vu too"),
    ],
)
def test_texts_are_cleaned_of_secrets_and_control_characters(text: str, shown: str) -> None:
    assert clean(text) == shown


def test_a_record_larger_than_a_datagram_arrives_whole(log: logging.Logger, reader: Reader) -> None:
    text = "x" * 20_000_000
    log.info("%s", text)
    (record,) = reader.read()
    assert record["MESSAGE"] == text


def test_a_journal_that_does_not_read_costs_no_time_and_the_lost_are_counted(
    log: logging.Logger, reader: Reader
) -> None:
    began = time.monotonic()
    for number in range(5000):
        log.info("%d", number)
    spent = time.monotonic() - began
    before = reader.read()
    log.info("again")
    after = reader.read()
    assert [record["MESSAGE"] for record in before] == [str(number) for number in range(len(before))]
    lost = 5000 - len(before)
    assert lost > 0
    assert after[0]["MESSAGE"] == "again"
    assert re.fullmatch(
        rf"{lost} log records were lost since \d\d:\d\d:\d\d: the journal did not take them",
        after[1]["MESSAGE"],
    )
    assert after[1]["AJ_LOST"] == str(lost)
    assert after[1]["PRIORITY"] == "4"
    log.info("and again")
    assert [record["MESSAGE"] for record in reader.read()] == ["and again"], "told once"
    assert spent < 20, "not even 4 ms each"


def test_the_lost_are_told_although_nobody_logs_any_more(root: logging.Logger, reader: Reader) -> None:
    journal = Journal({}, reader.address)
    handler = JournalHandler(journal)
    root.addHandler(handler)
    while not journal.dropped:
        APPLICATION.warning("x")
    lost = journal.dropped
    reader.read()
    log_outputs.report_lost()
    log_outputs.report_lost()
    assert [record["AJ_LOST"] for record in reader.read()] == [str(lost)]
    handler.close()


def test_a_journal_that_is_gone_costs_records_only(log: logging.Logger, reader: Reader) -> None:
    reader.socket.close()
    os.unlink(reader.address)
    log.info("lost")
    returned = Reader(Path(reader.address))
    log.info("taken")
    taken, note = returned.read()
    assert taken["MESSAGE"] == "taken"
    assert note["AJ_LOST"] == "1"
    returned.socket.close()


def test_threads_may_log_at_once(log: logging.Logger, reader: Reader) -> None:
    seen: list[dict[str, str]] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.extend(reader.read())
        seen.extend(reader.read())

    reading = threading.Thread(target=read)
    reading.start()

    def write(name: str) -> None:
        for number in range(50):
            log.info("%s %d", name, number)

    writing = [threading.Thread(target=write, args=(name,)) for name in ("a", "b")]
    for thread in writing:
        thread.start()
    for thread in writing:
        thread.join()
    done.set()
    reading.join()
    lost = sum(int(record["AJ_LOST"]) for record in seen if "AJ_LOST" in record)
    taken = [record for record in seen if "AJ_LOST" not in record]
    assert 0 < len(taken) <= 100
    assert len(taken) + lost <= 100


@pytest.fixture
def printing(reader: Reader) -> Iterator[Callable[[dict[str, str]], None]]:
    """Sends prints to `reader`, with the given fields; puts `sys.stdout` and `sys.stderr` back afterwards."""
    with (
        contextlib.redirect_stdout(sys.stdout),
        contextlib.redirect_stderr(sys.stderr),
        contextlib.ExitStack() as journals,
    ):
        yield lambda fields: redirect_prints(
            JournalHandler(journals.enter_context(contextlib.closing(Journal(fields, reader.address)))).print_line
        )


def test_each_printed_line_is_a_record_with_the_task_that_printed_it(
    reader: Reader, printing: Callable[[dict[str, str]], None]
) -> None:
    printing({"AJ_SLOT": "1"})
    token = CURRENT_TASK.set(Running(TaskLabels("T3", "mail", "", 2, 0.5)))
    try:
        print("two", "words")
        print("one\ntwo", end="")
        print(", ended", file=sys.stdout)
        print()
        print("<3>no connection", file=sys.stderr)
        print("to stderr", file=sys.stderr)
    finally:
        CURRENT_TASK.reset(token)
    print("no task")
    records = reader.read()
    assert [(record["MESSAGE"], record["PRIORITY"], record.get("AJ_TASK")) for record in records] == [
        ("two words", "6", "T3"),
        ("one", "6", "T3"),
        ("two, ended", "6", "T3"),
        ("no connection", "3", "T3"),
        ("to stderr", "4", "T3"),
        ("no task", "6", None),
    ]
    assert {record["AJ_SLOT"] for record in records} == {"1"}
    assert (sys.stdout.fileno(), sys.stderr.fileno()) == (1, 2)


def test_a_module_that_kept_stdout_prints_as_the_worker_after_the_fork(
    reader: Reader, printing: Callable[[dict[str, str]], None]
) -> None:
    printing({"AJ_ROLE": "template"})
    kept = sys.stdout
    print("an unfinished line", end="", flush=True)
    printing({"AJ_ROLE": "worker"})
    print("from a handler", file=kept)
    assert [(record["MESSAGE"], record["AJ_ROLE"]) for record in reader.read()] == [("from a handler", "worker")]


def test_a_line_without_end_does_not_grow_for_ever(reader: Reader, printing: Callable[[dict[str, str]], None]) -> None:
    printing({})
    print("x" * 200_000, end="", flush=True)
    records = reader.read()
    assert len(records) == 4
    assert {len(record["MESSAGE"]) for record in records} == {48 << 10}


def test_the_journal_is_used_only_if_stderr_is_its_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    found = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
    assert journald.is_attached()
    monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino + 1}")
    assert not journald.is_attached()
    monkeypatch.delenv("JOURNAL_STREAM")
    assert not journald.is_attached()


def test_an_applications_default_timeout_changes_neither_the_streams_nor_the_way_to_the_journal() -> None:
    """Its flag would be that of every process that shares the streams (fcntl(2), O_NONBLOCK)."""
    script = """
import os, socket
from ajhost.adapters.systemd import journald
ours, theirs = socket.socketpair()
os.dup2(theirs.fileno(), 1)
os.dup2(theirs.fileno(), 2)
found = os.fstat(2)
os.environ["JOURNAL_STREAM"] = f"{found.st_dev}:{found.st_ino}"
socket.setdefaulttimeout(5)
journald.bound_stdio()
wait = theirs.getsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, 16)
ours.sendall(repr((os.get_blocking(1), wait != bytes(16), journald.Journal({})._socket.gettimeout())).encode())
os.write(1, theirs.recv(100))
os._exit(0 if ours.recv(100) == b"(True, True, 0.0)" else 1)
"""
    environment = {**os.environ, "PYTHONPATH": DAEMON}
    assert subprocess.run([sys.executable, "-c", script], timeout=30, check=False, env=environment).returncode == 0
