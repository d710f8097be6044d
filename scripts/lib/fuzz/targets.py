"""Everything that reads what comes from outside, with samples of it, and the exceptions that it may raise."""

from __future__ import annotations

import base64
import contextlib
import random
import socket
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ajhost.adapters.http import PageAccess
from ajhost.adapters.linux.channel import Channel, ChannelClosed
from ajhost.adapters.nats import refused_replies
from ajhost.api import InvalidPayload
from ajhost.core import attempt_ring, recovery_rules, route_stats, server_errors
from ajhost.core.recovery_rules import Fact
from ajhost.core.server_errors import error_text
from ajhost.ledger.layout import Geometry, LedgerError
from ajhost.ledger.queue_token import check as check_token
from ajhost.ledger.queue_token import token_places, unpack
from ajhost.ledger.receive_buffer import ReceiveBuffer
from ajhost.ledger.view import Ledger
from ajhost.protocol import (
    credential_files,
    exact_json,
    frames,
    reply_encoding,
    request_headers,
    safe_text,
    server_info,
    server_url,
    service_api,
    signature,
    task_record,
    timestamps,
    unwrap,
)
from ajhost.roles.messages import FOR_TEMPLATE, FOR_WORKER, FROM_TEMPLATE, FROM_WORKER, BadMessage, Vocabulary
from ajhost.roles.payload_readers import payload_reader
from ajhost.settings.errors import InvalidValue, SettingsError
from ajhost.settings.load import load
from ajhost.settings.nats_context import context_file, load_context
from scripts.lib.fuzz.host_files import CHANGES, HostFiles
from scripts.lib.fuzz.mutator import mutated, overwritten
from tests.support.memory_ledger import ledger_in_memory
from tests.support.operator_mode import Operator
from tests.support.router import headers_of, task_json

_KEYS = [bytes(range(32))]
_NAMED = ("creds", "nkey", "password_file", "token_file", "key_file", "ca", "cert")
_VIOLATION = b"-ERR 'Permissions Violation for Publish to \"_INBOX.a.b\"'\r\n"
_MOST_CPU = 2.0
"""Seconds that one input may take: what anybody may send must not keep a worker from its other requests."""


@dataclass(frozen=True, slots=True)
class Reader:
    """`read` may raise `documented` and nothing else."""

    name: str
    read: Callable[[bytes], object]
    documented: tuple[type[Exception], ...]
    samples: Sequence[bytes]
    change: Callable[[random.Random, Sequence[bytes]], bytes] = mutated


@dataclass(frozen=True, slots=True)
class Failure:
    """What was raised, for which input."""

    reader: str
    data: bytes
    trace: str

    def __str__(self) -> str:
        return f"{self.reader}: {self.data[:2000]!r}\n{self.trace}"


def _header() -> bytes:
    lines = "".join(f"{key}: {value}\r\n" for key, value in headers_of(int(time.time()) + 60).items())
    return b"NATS/1.0\r\n" + lines.encode() + b"\r\n"


def _signed_task(data: bytes) -> object:
    return signature.verify(task_record.read_task(data), _KEYS)


def _read_message(data: bytes) -> object:
    """A message on a channel, by each of its four ends."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        ours.send(data[: 1 << 16] or b"{")
        channel = Channel(theirs)
        theirs.setblocking(False)
        try:
            found = channel.receive()
        finally:
            channel.close()
    assert found is not None
    message, descriptors = found
    assert not descriptors
    vocabularies: tuple[Vocabulary[Any], ...] = (FOR_WORKER, FROM_WORKER, FOR_TEMPLATE, FROM_TEMPLATE)
    for vocabulary in vocabularies:
        with contextlib.suppress(BadMessage):
            vocabulary.decode(message)
    return message


def _ledger_image() -> bytes:
    """A ledger in which requests are in every state."""
    owner = ledger_in_memory(Geometry(64, 1 << 13, 1 << 13))
    owner.words[20] = owner.words[19] = 4000
    for number in range(40):
        index = owner.receive(owner.chunk_at + 64 * number, 64, number)
        owner.set_deadline(index, 10**12)
        if number % 4:
            owner.start(index, number, b"_INBOX.abc.%d" % number, b"id%d" % number, b"email:new", 0, 1)
        if number % 4 > 1:
            owner.answer(index)
        if number % 4 > 2:
            owner.sent([index])
    return bytes(owner.view)


def _read_ledger(data: bytes) -> object:
    """Everything that another process does with a ledger before it acts."""
    ledger = Ledger(memoryview(bytearray(data)))
    ledger.recount_touched()
    for facts in (Fact(0), ~Fact(0)):
        found = recovery_rules.classify(ledger, facts)
    for entry in (*found.requeue, *found.answer, *found.confirm):
        ledger.frame(entry.index)
    recovery_rules.overdue(ledger, 1 << 62)
    recovery_rules.earliest_deadline(ledger, 1)
    for place in token_places(ledger):
        check_token(unpack(place), ledger)
    ledger.connection()
    ledger.settled_entries(), list(ledger.unanswered(1 << 62)), ledger.running()
    with contextlib.suppress(LedgerError):
        ReceiveBuffer(ledger).resume(4000)
    return ledger


def _stats_image() -> bytes:
    data = bytearray(route_stats.file_size(3))
    stats = route_stats.StatsWriter(memoryview(data), ("", "email:new"))
    for _ in range(9):
        stats.completed([(1, 0.1, 2.0)])
        stats.failed(0, "handler error", 0.0, 0.1)
    return bytes(data)


def _read_stats(data: bytes) -> object:
    found = route_stats.read(data)
    for stats in found.values():
        stats.waiting.quantile(0.5), stats.running.cumulative(), stats.answered, stats.failed, stats.refused
    return route_stats.add_up([found, found])


def _ring_image() -> bytes:
    data = bytearray(attempt_ring.SIZE)
    ring = attempt_ring.AttemptRing(memoryview(data))
    for number in range(40):
        ring.append(b'{"id": "%d"}' % number)
    return bytes(data)


def _read_ring(data: bytes) -> object:
    return attempt_ring.read(memoryview(bytearray(data)))


class _Mail(BaseModel):
    to: list[str]
    at: datetime
    size: Decimal | None = None


_PAYLOADS = [payload_reader("fuzz", "mail", hint) for hint in (_Mail, dict[str, int], str | None, Any)]


def _read_payload(data: bytes) -> None:
    for reader in _PAYLOADS:
        with contextlib.suppress(InvalidPayload):
            reader.read(data)


def _read_error(line: bytes) -> None:
    """What a server says with `-ERR`, as a log and a status show it."""
    text = error_text(line)
    assert text.isprintable(), text
    server_errors.reason_of(text)
    if violation := server_errors.violation_of(text):
        violation.grant()


def _make_safe(data: bytes) -> None:
    """Foreign text for each place where it is shown."""
    for text in (data.decode("utf-8", "replace"), data.decode("utf-8", "surrogateescape")):
        for safe in (safe_text.one_line(text), safe_text.printable(text), reply_encoding.sanitise(text)):
            assert not any(c < " " or "\x7f" <= c < "\xa0" or c in "\u202e\u2066\u200b" for c in safe), safe
        assert reply_encoding.sanitise(text).strip()
        assert len(reply_encoding.sanitise(text).encode()) <= reply_encoding.TEXT_LIMIT


def _ask_access(data: bytes) -> None:
    access = PageAccess(b"the token", frozenset({"jobs.example.net"}))
    for headers in ({b"host": data}, {b"host": b"localhost", b"authorization": data}):
        access.refusal(headers)


def _text(read: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda data: read(data.decode("utf-8", "replace"))


def readers(directory: Path) -> list[Reader]:
    """All of them. `directory` is for files that are read."""
    header, body = _header(), task_json("echo", b'{"a": [1, 2.5, "x"]}')
    creds = Operator().user("fuzz").encode()
    signed = task_json("echo", b"x", signature=base64.b64encode(bytes(64)).decode())
    message = b"MSG CHORIA_AJ.H.T.echo 1 _INBOX.a.b %d\r\n%b\r\n" % (len(body), body)
    full = b"HMSG a 1 _INBOX.b %d %d\r\n%b%b\r\n" % (len(header), len(header) + len(body), header, body)
    info = (
        b'INFO {"server_id":"NA","version":"2.11.0","headers":true,"max_payload":1048576,"nonce":"abc",'
        b'"connect_urls":["127.0.0.1:4222","[::1]:4222"],"ldm":true,"tls_required":false}\r\n'
    )
    settings = (
        b'[nats]\nservers = ["nats://u:p%40@127.0.0.1:4222"]\n[workers]\ncount = 2\n'
        b'[handlers."a:"]\ntarget = "json:loads"\ntimeout = 5.5\n[http]\nlisten = "127.0.0.1:9464"\n'
    )
    file = directory / "ajhost.toml"

    run = HostFiles(directory)
    named, keys = directory / "named", directory / "named.toml"
    context = context_file("fuzz", {"XDG_CONFIG_HOME": str(directory)})

    def read_environment(data: bytes) -> object:
        file.write_bytes(settings)
        file.chmod(0o600)
        lines = [line.partition("=") for line in data.decode("utf-8", "surrogateescape").split("\n")]
        return load(file, {name: value for name, _, value in lines} | {"HOME": str(directory)})

    def read_context(data: bytes) -> object:
        context.parent.mkdir(parents=True, exist_ok=True)
        context.write_bytes(data)
        context.chmod(0o600)
        return load_context("fuzz", {"XDG_CONFIG_HOME": str(directory), "HOME": str(directory)}, None)

    def read_named(data: bytes) -> None:
        """A file of each kind that settings name."""
        named.write_bytes(data)
        named.chmod(0o600)
        for key in _NAMED:
            user = 'user = "u"\n' if key == "password_file" else ""
            table = "[signature]" if key == "key_file" else "[nats.tls]" if key in ("ca", "cert") else "[nats]"
            keys.write_text(f'{table}\n{user}{key} = "{named}"\n[handlers.a]\ntarget = "json:loads"\n')
            with contextlib.suppress(SettingsError):
                load(keys, {"HOME": str(directory)})

    def read_settings(data: bytes) -> object:
        file.write_bytes(data)
        file.chmod(0o600)
        return load(file, {"HOME": str(directory)})

    return [
        Reader("frames", frames.scan, (frames.FrameError,), (message, full, message + full, info, b"PING\r\n")),
        Reader("message lines", frames.message_line, (), (message, full)),
        Reader("INFO", server_info.read_info, (server_info.InfoError,), (info,)),
        Reader("tasks", task_record.read_task, (ValueError,), (body, signed)),
        Reader("signatures", _signed_task, (ValueError,), (signed,)),
        Reader("headers", request_headers.read_deadline, (ValueError,), (header,)),
        Reader(
            "digits",
            exact_json.loads_digits,
            (ValueError,),
            (b'{"a": [1, 2.5, 0.10000000000000000001, "7"]}',),
        ),
        Reader("payloads", exact_json.loads, (ValueError,), (b'{"a": [1, 2.5, 1e400, "x"]}', b"NaN")),
        Reader(
            "credentials",
            credential_files.read_user_credentials,
            (credential_files.CredentialsError,),
            (creds,),
        ),
        Reader("seeds", credential_files.read_seed, (credential_files.CredentialsError,), (creds, creds[-200:])),
        Reader("passwords", credential_files.read_word, (credential_files.CredentialsError,), (b"sesame\n",)),
        Reader(
            "server URLs",
            _text(server_url.read_server_url),
            (ValueError,),
            (b"tls://u:p@[::1]:4222", b"a.b:1"),
        ),
        Reader("times", _text(timestamps.parse), (ValueError,), (b"2026-11-29T12:00:00.123456789+01:00",)),
        Reader(
            "channel messages",
            _read_message,
            (ChannelClosed,),
            (
                b'{"LeaveOrder": {"stop": true}}',
                b'{"socket": {"epoch": 3}}',
                b'{"cancel": {"task": "a", "text": "b"}}',
            ),
        ),
        Reader("ledgers", _read_ledger, (LedgerError,), (_ledger_image(),), overwritten),
        Reader("statistics", _read_stats, (ValueError,), (_stats_image(),), overwritten),
        Reader("attempts", _read_ring, (ValueError,), (_ring_image(),), overwritten),
        Reader("settings", read_settings, (SettingsError,), (settings,)),
        Reader(
            "settings of the environment",
            read_environment,
            (SettingsError,),
            (
                b'AJHOST_NATS__SERVERS=["nats://u:p@127.0.0.1:4222"]\nAJHOST_WORKERS__COUNT=2\n'
                b'AJHOST_HANDLERS__B__TARGET=json:loads\nAJHOST_HANDLERS={"c": {"target": "json:loads"}}',
            ),
        ),
        Reader(
            "NATS contexts",
            read_context,
            (InvalidValue,),
            (
                b'{"url": "nats://u:p@127.0.0.1:4222,tls://[::1]:4222", "token": "t", "ca": "~/ca.pem",'
                b'"creds": "$HOME/a.creds", "inbox_prefix": "_INBOX", "tls_first": true, "description": "x"}',
                b'{"url": "a.b:1", "user": "u", "password": "p", "nkey": "op://vault/seed"}',
            ),
        ),
        Reader("files that settings name", read_named, (), (creds, creds[-200:], b"sesame\n", b"ea4a" * 16)),
        Reader("errors of a server", _read_error, (), (_VIOLATION, b"-ERR 'Authorization Violation'\r\n")),
        Reader(
            "typed payloads",
            _read_payload,
            (),
            (b'{"to": ["a"], "at": "2026-11-29T12:00:00Z", "size": 1.5}',),
        ),
        Reader("wrapped payloads", unwrap.unwrap, (ValueError,), (b'"eyJhIjogMX0="',)),
        Reader("JSON inside JSON", unwrap.json_inside, (ValueError,), (b'"{\\"a\\": 1}"', b'"eyJhIjogMX0="')),
        Reader("foreign texts", _make_safe, (), ("nats://u:p@h \x1b[2J\u202e\u200b\nna\u00efve".encode(),)),
        Reader(
            "access to pages",
            _ask_access,
            (),
            (b"localhost:80", b"[::1]:80", b"Bearer the token", b"Basic dTp0"),
        ),
        Reader("subjects of services", _text(service_api.verb_of), (), (b"$SRV.STATS.ajhost.1f",)),
        Reader(
            "publications",
            lambda data: refused_replies.fit(data, 1 << 10),
            (),
            (b"PUB _INBOX.a 2\r\nhi\r\nHPUB _INBOX.b 12 12\r\nNATS/1.0\r\n\r\n\r\n",),
        ),
        *(
            Reader(f"a host's {name}", run.reader(name), (), (), run.change(name, change))
            for name, change in CHANGES.items()
        ),
    ]


def check(reader: Reader, rng: random.Random, until: float) -> tuple[int, list[Failure]]:
    """Changed samples until that moment (monotonic): how many, and what failed."""
    count, failures = 0, list[Failure]()
    while time.monotonic() < until and len(failures) < 5:
        for _ in range(20):
            data = reader.change(rng, reader.samples)
            count += 1
            began = time.process_time()
            try:
                with contextlib.suppress(*reader.documented):
                    reader.read(data)
            except Exception:
                failures.append(Failure(reader.name, data, traceback.format_exc()))
            if (took := time.process_time() - began) > _MOST_CPU:
                failures.append(Failure(reader.name, data, f"it took {took:.1f} s of CPU\n"))
    return count, failures
