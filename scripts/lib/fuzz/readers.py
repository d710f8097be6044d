"""Everything that reads what comes from outside, with samples of it, and the exceptions that it may raise."""

from __future__ import annotations

import base64
import contextlib
import random
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ajhost.protocol import (
    credentials,
    exact_json,
    frames,
    server_info,
    server_url,
    signature,
    task,
    times,
    wire,
)
from ajhost.settings.errors import SettingsError
from ajhost.settings.load import load
from scripts.lib.fuzz.mutate import mutated
from tests.support.operator_mode import Operator
from tests.support.router import headers_of, task_json

_KEYS = [bytes(range(32))]


@dataclass(frozen=True, slots=True)
class Reader:
    """`read` may raise `documented` and nothing else."""

    name: str
    read: Callable[[bytes], object]
    documented: tuple[type[Exception], ...]
    samples: Sequence[bytes]


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
    return signature.verify(task.read_task(data), _KEYS)


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

    def read_settings(data: bytes) -> object:
        file.write_bytes(data)
        file.chmod(0o600)
        return load(file, {"HOME": str(directory)})

    return [
        Reader(
            "frames", frames.scan, (frames.FrameError,), (message, full, message + full, info, b"PING\r\n")
        ),
        Reader("message lines", frames.message_line, (), (message, full)),
        Reader("INFO", server_info.read_info, (server_info.InfoError,), (info,)),
        Reader("tasks", task.read_task, (ValueError,), (body, signed)),
        Reader("signatures", _signed_task, (ValueError,), (signed,)),
        Reader("headers", lambda data: wire.read_request(data, body), (), (header,)),
        Reader("bodies", lambda data: wire.read_request(header, data), (), (body, signed)),
        Reader("payloads", exact_json.loads, (ValueError,), (b'{"a": [1, 2.5, 1e400, "x"]}', b"NaN")),
        Reader("credentials", credentials.read_user_credentials, (credentials.CredentialsError,), (creds,)),
        Reader("seeds", credentials.read_seed, (credentials.CredentialsError,), (creds, creds[-200:])),
        Reader("passwords", credentials.read_word, (credentials.CredentialsError,), (b"sesame\n",)),
        Reader(
            "server URLs",
            _text(server_url.read_server_url),
            (ValueError,),
            (b"tls://u:p@[::1]:4222", b"a.b:1"),
        ),
        Reader("times", _text(times.parse), (ValueError,), (b"2026-11-29T12:00:00.123456789+01:00",)),
        Reader("settings", read_settings, (SettingsError,), (settings,)),
    ]


def check(reader: Reader, rng: random.Random, until: float) -> tuple[int, list[Failure]]:
    """Changed samples until that moment (monotonic): how many, and what failed."""
    count, failures = 0, list[Failure]()
    while time.monotonic() < until and len(failures) < 5:
        for _ in range(20):
            data = mutated(rng, reader.samples)
            count += 1
            try:
                with contextlib.suppress(*reader.documented):
                    reader.read(data)
            except Exception:
                failures.append(Failure(reader.name, data, traceback.format_exc()))
    return count, failures
