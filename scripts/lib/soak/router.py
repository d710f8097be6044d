"""The router's side: sends requests, keeps each until its fate and its runs are known, then only counts it.

All times are Unix seconds, so that they compare with the header, with the handlers' record and with the host's log.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from base64 import b64encode
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg

from tests.support.router import CONTENT_TYPE, rfc3339, subject_of

SLACK = 2.0
"""Seconds that a router waits past the header's second, at least."""
KEPT = 12.0
"""Seconds for which a settled request is kept: for second answers and runs, and faults whose end is not known yet."""
OK = "ok"
NO_RESPONDERS = "no responders"


@dataclass(slots=True)
class Run:
    """A handler that began."""

    pid: int
    at: float


@dataclass(slots=True)
class Request:
    """One request. `deadline` is the header's second; `word` what the first answer said, None without one."""

    id: str
    route: str
    sent: float
    deadline: int
    word: str | None = None
    text: str = ""
    answered: float = 0.0
    lag: float = 0.0
    """Seconds by which this program itself was behind when the answer came."""
    given_up: bool = False
    settled: float = 0.0
    duplicates: int = 0
    runs: list[Run] = field(default_factory=list)
    waiter: asyncio.Future[None] | None = None

    @property
    def late(self) -> float:
        """Seconds past the header's second at which the first answer came, as far as this program is not to blame."""
        return self.answered - self.lag - self.deadline if self.word is not None else 0.0

    def __str__(self) -> str:
        runs = ", ".join(f"pid {run.pid} at {stamp(run.at)}" for run in self.runs) or "never"
        answer = (
            "no answer"
            if self.word is None
            else f"{self.word!r} at {stamp(self.answered)} ({self.answered - self.deadline:+.2f} s): {self.text}"
        )
        return (
            f"{self.id} on {self.route!r}, sent {stamp(self.sent)}, deadline {stamp(self.deadline)}, ran: {runs}; "
            f"{answer}; {self.duplicates} more answers"
        )


def stamp(at: float) -> str:
    """A Unix time as the host's log writes it."""
    return datetime.fromtimestamp(at).astimezone().strftime("%H:%M:%S.%f")[:-3]


class Router:
    """One client, which outlives the server's restarts. `closed(request)` is told of each request once it is final."""

    def __init__(self, url: str, record: Path, closed: Callable[[Request], None]) -> None:
        self._url = url
        self._closed_one = closed
        self._client = Client()
        self._inbox = f"_INBOX.soak{time.time_ns():x}"
        self._open: dict[str, Request] = {}
        self._settled: deque[Request] = deque()
        self._kept: dict[str, Request] = {}
        self._number = 0
        self._record = record.open("rb")
        self._rest = b""
        self._task: asyncio.Task[None] | None = None
        self.sent = 0
        self.answers: Counter[str] = Counter()
        """First answers by their word, as they come; what is final goes to `closed`."""
        self.strange: list[str] = []
        self.belated = 0
        """Further answers to what was settled long ago: past a server's restart, replies are repeated for a while."""
        """Answers and runs of requests that nobody knows (any more)."""
        self.lag = 0.0
        self._look_at = math.inf
        self._idle = asyncio.Event()
        self._idle.set()
        self.connected = asyncio.Event()
        self.back_at = 0.0
        """When the connection was last made."""

    async def start(self) -> None:
        """Connects."""

        async def up() -> None:
            self.back_at = time.time()
            self.connected.set()

        async def down() -> None:
            self.connected.clear()

        async def ignore(_: Exception) -> None:
            """The server's restarts are ours."""

        await self._client.connect(
            self._url,
            error_cb=ignore,
            disconnected_cb=down,
            reconnected_cb=up,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.05,  # type: ignore[arg-type]  # seconds, slept as they are
            pending_size=256 << 20,
        )
        await self._client.subscribe(f"{self._inbox}.*", cb=self._replied, pending_msgs_limit=0, pending_bytes_limit=0)
        await self._client.flush()
        await up()
        self._task = asyncio.create_task(self._look())

    async def close(self) -> None:
        """Judges whatever is left."""
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._read_record()
        for request in (*self._settled, *self._open.values()):
            self._closed_one(request)
        self._record.close()
        await self._client.close()

    @property
    def outstanding(self) -> int:
        """How many have no answer yet, and are not given up."""
        return len(self._open)

    async def barrier(self) -> None:
        """Returns when the server has answered."""
        await self._client.flush(timeout=60)

    async def settle(self) -> None:
        """Returns when each request is answered or given up."""
        await self._idle.wait()

    async def send(self, route: str, payload: dict[str, Any], seconds: float, type_: str = "") -> Request:
        """A task for `route` whose header says `seconds` from now, its fraction cut off."""
        self._number += 1
        now = time.time()
        request = Request(f"2soak{self._number:022d}", route, now, int(now + seconds))
        moment = rfc3339(now)
        task = {
            "id": request.id,
            "type": type_ or route,
            "queue": "SOAK",
            "payload": b64encode(json.dumps(payload).encode()).decode(),
            "max_tries": 10,
            "state": "active",
            "created": moment,
            "tried": moment,
            "tries": 1,
        }
        self._open[request.id] = self._kept[request.id] = request
        self._idle.clear()
        self.sent += 1
        await self._client.publish(
            subject_of(route),
            json.dumps(task).encode(),
            reply=f"{self._inbox}.{request.id}",
            headers={
                "AJ-Content-Type": CONTENT_TYPE,
                "AJ-Handler-Deadline": datetime.fromtimestamp(request.deadline, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            },
        )
        return request

    async def answer(self, request: Request) -> None:
        """Returns when it is answered or given up."""
        if not request.settled:
            request.waiter = asyncio.get_running_loop().create_future()
            await request.waiter

    async def _replied(self, message: Msg) -> None:
        request = self._kept.get(message.subject.rpartition(".")[2])
        if request is None:
            self.belated += 1
            return
        if request.word is not None:
            request.duplicates += 1
            return
        request.answered, request.lag = time.time(), max(self.lag, time.monotonic() - self._look_at)
        headers = message.headers or {}
        if text := headers.get("AJ-Terminate", "").strip():
            request.word, request.text = "AJ-Terminate", text
        elif text := headers.get("AJ-Error", "").strip():
            request.word, request.text = text.partition(":")[0] + ":", text
        elif headers.get("Status") == "503":
            request.word = NO_RESPONDERS
        else:
            request.word = OK
            if request.id not in message.data.decode():
                request.text = f"a foreign body: {message.data[:200]!r}"
        self.answers[request.word] += 1
        if not request.given_up:
            self._settle(request, request.answered)

    def _settle(self, request: Request, now: float) -> None:
        self._open.pop(request.id, None)
        if not self._open:
            self._idle.set()
        request.settled = now
        self._settled.append(request)
        if request.waiter is not None and not request.waiter.done():
            request.waiter.set_result(None)

    async def _look(self) -> None:
        """Every tenth of a second: what the handlers recorded, whom the router gives up, who is final; our own lag."""
        pause, turn = 0.1, 0
        while True:
            before = time.monotonic()
            # what is read right after a pause of ours comes before this look, which would tell of the pause
            self._look_at = before + pause
            await asyncio.sleep(pause)
            self.lag = max(time.monotonic() - before - pause, self.lag * 0.7 if self.lag > 0.01 else 0.0)
            self._read_record()
            now = time.time()
            turn += 1
            if turn % 5 == 0:
                for request in [r for r in self._open.values() if now > r.deadline + SLACK + self.lag]:
                    request.given_up = True
                    self._settle(request, now)
            while self._settled and self._settled[0].settled + KEPT < now:
                request = self._settled.popleft()
                del self._kept[request.id]
                self._closed_one(request)

    def _read_record(self) -> None:
        *lines, self._rest = (self._rest + self._record.read()).split(b"\n")
        for line in lines:
            id_, pid, at = line.decode().split()
            request = self._kept.get(id_)
            if request is None:
                self.strange.append(f"a run of {id_} by pid {pid} at {stamp(float(at))}, which was settled long ago")
            else:
                request.runs.append(Run(int(pid), float(at)))
