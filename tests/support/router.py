"""The router's side of the protocol, played by a test: requests as asyncjobs v0.3.0 sends them, and their fates.

A request is one NATS message with a reply subject of its own. Every reply to it is kept, the second ones too, with its
time on both clocks; a request without any by the end of the router's patience is *silent*, which is what this host
exists to prevent.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from types import TracebackType
from typing import Any, Self

from nats.aio.client import Client
from nats.aio.msg import Msg

from tests.support.nats import round_trip

SLACK = 2.0
"""Seconds that a router waits past the header's deadline, at least."""
CONTENT_TYPE = "application/x-asyncjobs-task+json"
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

Payload = bytes | Mapping[str, Any] | None


class Verdict(Enum):
    """What the router makes of a request."""

    COMPLETE = "complete"
    ERROR = "AJ-Error"
    TERMINATE = "AJ-Terminate"
    NO_RESPONDERS = "no responders"
    SILENT = "silent"


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer. `text` is that of AJ-Error or AJ-Terminate. `at` is monotonic, `wall` Unix seconds."""

    verdict: Verdict
    body: bytes
    text: str
    at: float
    wall: float

    @property
    def word(self) -> str:
        """The stable word that an AJ-Error text begins with, its colon included: `worker died:`."""
        return self.text.partition(":")[0] + ":"

    def json(self) -> Any:
        """The body decoded. Raises AssertionError when the reply is not a completion."""
        assert self.verdict is Verdict.COMPLETE, self
        return json.loads(self.body)


@dataclass(slots=True)
class Request:
    """One request and its answers. `sent` and `scheduled` are monotonic, `deadline` is the header's Unix second."""

    id: str
    subject: str
    deadline: int
    sent: float
    scheduled: float
    first: asyncio.Future[Reply]
    replies: list[Reply] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        """By the first reply, as the router's one-shot inbox has it."""
        return self.replies[0].verdict if self.replies else Verdict.SILENT

    @property
    def latency(self) -> float:
        """Seconds from the moment at which it was due to its first reply."""
        return self.replies[0].at - self.scheduled

    @property
    def is_late(self) -> bool:
        """The first reply came after the header's deadline."""
        return bool(self.replies) and self.replies[0].wall > self.deadline


class SilentError(AssertionError):
    """A request had no answer when the router gave up."""


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a number of requests. Every figure is a count; `requests` has them one by one."""

    requests: tuple[Request, ...]

    @property
    def verdicts(self) -> Counter[Verdict]:
        """How many of each."""
        return Counter(request.verdict for request in self.requests)

    @property
    def words(self) -> Counter[str]:
        """How many AJ-Errors of each stable word."""
        return Counter(request.replies[0].word for request in self.requests if request.verdict is Verdict.ERROR)

    @property
    def silent(self) -> list[Request]:
        """Those without an answer."""
        return [request for request in self.requests if not request.replies]

    @property
    def no_responders(self) -> int:
        """Those that found nobody."""
        return self.verdicts[Verdict.NO_RESPONDERS]

    @property
    def late(self) -> list[Request]:
        """Those whose answer came after the header's deadline."""
        return [request for request in self.requests if request.is_late]

    @property
    def duplicates(self) -> int:
        """Answers past the first: harmless to the router, and to be explained."""
        return sum(len(request.replies) - 1 for request in self.requests if request.replies)

    def latency(self, percent: float) -> float:
        """The latency in seconds that `percent` of the answered requests do not exceed."""
        answered = sorted(request.latency for request in self.requests if request.replies)
        assert answered, "nothing was answered"
        return answered[min(int(len(answered) * percent / 100), len(answered) - 1)]

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {verdict.value}" for verdict, count in self.verdicts.items())
        words = f" ({dict(self.words)})" if self.words else ""
        answered = any(request.replies for request in self.requests)
        times = f"; p50 {self.latency(50):.4f} s, p99 {self.latency(99):.4f} s, max {self.latency(100):.4f} s"
        return (
            f"{len(self.requests)} requests: {counts}{words}, {self.duplicates} duplicates, {len(self.late)} late"
            f"{times if answered else ''}"
        )


def rfc3339(seconds: float) -> str:
    """A Unix time as Go's `time.RFC3339Nano` writes it, in UTC, with microseconds."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def new_id() -> str:
    """27 characters, like the KSUIDs of asyncjobs."""
    return "".join(random.choices(_ALPHABET, k=27))


def subject_of(route: str) -> str:
    """Where the router sends a task of the registered `route`."""
    return f"CHORIA_AJ.H.T.{route or 'catchall'}"


def task_json(task_type: str, payload: Payload = None, **fields: Any) -> bytes:
    """A task as the router sends it; `fields` replace or add members (None removes one)."""
    if isinstance(payload, Mapping):
        payload = json.dumps(payload).encode()
    now = rfc3339(time.time())
    task: dict[str, Any] = {
        "id": new_id(),
        "type": task_type,
        "queue": "DEFAULT",
        "payload": None if payload is None else base64.b64encode(payload).decode(),
        "max_tries": 10,
        "state": "active",
        "created": now,
        "tried": now,
        "tries": 1,
    }
    for name, value in fields.items():
        task[name] = value
        if value is None:
            del task[name]
    return json.dumps(task, separators=(",", ":")).encode()


def headers_of(deadline: int) -> dict[str, str]:
    """The two headers of a request whose deadline is that Unix second."""
    return {
        "AJ-Content-Type": CONTENT_TYPE,
        "AJ-Handler-Deadline": datetime.fromtimestamp(deadline, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _read_reply(message: Msg) -> Reply:
    at, wall = time.monotonic(), time.time()
    headers = message.headers or {}
    if text := headers.get("AJ-Terminate", "").strip():
        return Reply(Verdict.TERMINATE, message.data, text, at, wall)
    if text := headers.get("AJ-Error", "").strip():
        return Reply(Verdict.ERROR, message.data, text, at, wall)
    if headers.get("Status") == "503":
        return Reply(Verdict.NO_RESPONDERS, b"", "", at, wall)
    return Reply(Verdict.COMPLETE, message.data, "", at, wall)


class Load:
    """Requests that go out at their own pace, whatever comes back: Poisson arrivals, latency counted from each one's
    due time. Made by `Router.load`.

    `async with router.load("work", rate=300) as load:` sends until the block ends, then waits until each request is
    answered or given up; `load.report()` has the result. With `count` it ends by itself, and the block waits for it.
    """

    def __init__(
        self,
        router: Router,
        send: Callable[[int, float], Awaitable[Request]],
        rate: float,
        count: int | None,
        seed: int,
    ) -> None:
        self.requests: list[Request] = []
        self._router = router
        self._send = send
        self._rate = rate
        self._count = count
        self._random = random.Random(seed)
        self._sender: asyncio.Task[None] | None = None
        self._milestones: list[tuple[int, asyncio.Event]] = []

    async def _run(self) -> None:
        due = time.monotonic()
        while self._count is None or len(self.requests) < self._count:
            due += self._random.expovariate(self._rate)
            if (ahead := due - time.monotonic()) > 0:
                await asyncio.sleep(ahead)
            self.requests.append(await self._send(len(self.requests), due))
            for number, event in self._milestones:
                if len(self.requests) >= number:
                    event.set()
            if len(self.requests) % 32 == 0:
                await asyncio.sleep(0)  # lets the connection write and read when there is no pause

    async def sent(self, more: int) -> None:
        """Returns when `more` requests went out from now on."""
        milestone = (len(self.requests) + more, asyncio.Event())
        self._milestones.append(milestone)
        await milestone[1].wait()
        self._milestones.remove(milestone)

    async def answered(self) -> None:
        """Returns when every request of up to now is answered or given up."""
        await self._router.settled(self.requests[:])

    def report(self) -> Report:
        """What became of them so far; final after the block."""
        return Report(tuple(self.requests))

    async def __aenter__(self) -> Self:
        self._sender = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._sender is not None
        if self._count is None or error is not None:
            self._sender.cancel()
        results = await asyncio.gather(self._sender, return_exceptions=True)
        if error is None:
            if isinstance(results[0], Exception):
                raise results[0]
            await self.answered()


class Router:
    """A client that sends what a router sends. Its connection survives the server's restarts."""

    def __init__(self, url: str, **connect: Any) -> None:
        self._url = url
        self._connect = connect
        self._client = Client()
        self._inbox = f"_INBOX.{new_id()}"
        self._pending: dict[str, Request] = {}
        self.unknown = 0
        """Replies to subjects that were never asked from: must stay 0."""

    @property
    def client(self) -> Client:
        """The NATS connection, for what this class does not offer."""
        return self._client

    async def __aenter__(self) -> Self:
        async def ignore(_: Exception) -> None:
            """Restarts of the server are part of the tests; nats-py would log each."""

        options: dict[str, Any] = {
            "error_cb": ignore,
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": 0.05,
            "pending_size": 256 * 1024 * 1024,
        }
        await self._client.connect(self._url, **options | self._connect)
        await self._client.subscribe(f"{self._inbox}.*", cb=self._replied, pending_msgs_limit=0, pending_bytes_limit=0)
        await self.barrier()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    async def barrier(self) -> None:
        """Returns when the server has taken everything sent so far, over a reconnect too."""
        await round_trip(self._client)

    async def _replied(self, message: Msg) -> None:
        request = self._pending.get(message.subject.rpartition(".")[2])
        if request is None:
            self.unknown += 1
            return
        reply = _read_reply(message)
        request.replies.append(reply)
        if not request.first.done():
            request.first.set_result(reply)

    # one request

    async def send_raw(
        self,
        subject: str,
        body: bytes,
        headers: dict[str, str] | None,
        *,
        id: str | None = None,
        deadline: int | None = None,
        scheduled: float | None = None,
    ) -> Request:
        """Any bytes as a request, hostile ones too. `deadline` (Unix seconds) only says how long `settled` waits."""
        token = id or new_id()
        now = time.monotonic()
        request = Request(
            id=token,
            subject=subject,
            deadline=int(time.time() + 10) if deadline is None else deadline,
            sent=now,
            scheduled=now if scheduled is None else scheduled,
            first=asyncio.get_running_loop().create_future(),
        )
        self._pending[token] = request
        await self._client.publish(subject, body, reply=f"{self._inbox}.{token}", headers=headers)
        return request

    async def send(
        self,
        route: str,
        payload: Payload = None,
        *,
        task_type: str | None = None,
        deadline: float = 10.0,
        subject: str | None = None,
        scheduled: float | None = None,
        **fields: Any,
    ) -> Request:
        """One task on the subject of `route`; `deadline` is the header's, in seconds from now, its fraction cut off.

        The task's type is the route unless `task_type` says another (routes that are prefixes, and the catch-all).
        `fields` replace or add members of the task.
        """
        id = fields.setdefault("id", new_id())
        header = int(time.time() + deadline)
        return await self.send_raw(
            subject or subject_of(route),
            task_json(task_type or route, payload, **fields),
            headers_of(header),
            id=id,
            deadline=header,
            scheduled=scheduled,
        )

    async def request(self, route: str, payload: Payload = None, **how: Any) -> Reply:
        """`send`, and its first reply. Raises SilentError."""
        return await self.reply(await self.send(route, payload, **how))

    def load(
        self,
        route: str | Sequence[str],
        payload: Payload | Callable[[int], Payload] = None,
        *,
        rate: float,
        count: int | None = None,
        deadline: float = 30.0,
        seed: int = 1,
    ) -> Load:
        """An open loop of `rate` requests a second over the routes in turn, endless without `count`.

        `payload` may be a function of the request's number.
        """
        routes = (route,) if isinstance(route, str) else tuple(route)

        async def send(number: int, scheduled: float) -> Request:
            content = payload(number) if callable(payload) else payload
            return await self.send(routes[number % len(routes)], content, deadline=deadline, scheduled=scheduled)

        return Load(self, send, rate, count, seed)

    async def settled(self, requests: list[Request]) -> None:
        """Returns when each is answered, or the router has given it up: header + 2 s."""
        waiting = [request.first for request in requests if not request.first.done()]
        if waiting:
            patience = max(request.deadline for request in requests) + SLACK - time.time()
            await asyncio.wait(waiting, timeout=max(patience, 0))

    async def reply(self, request: Request) -> Reply:
        """Its first reply. Raises SilentError when there is none by the end of the router's patience."""
        await self.settled([request])
        if not request.replies:
            raise SilentError(f"no answer to {request.id} on {request.subject}")
        return request.replies[0]
