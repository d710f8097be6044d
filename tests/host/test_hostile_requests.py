"""Hostile requests on the real wire: each with a reply subject gets exactly one answer, and no worker falls."""

from __future__ import annotations

import json
import random

from tests.support.factories import StartHost
from tests.support.router import Request, Router, Verdict, headers_of, new_id, task_json

COUNT = 5000


def _body(rng: random.Random) -> bytes:
    good = json.loads(task_json("echo", b"x"))
    match rng.randrange(8):
        case 0:
            return rng.randbytes(rng.randrange(300))
        case 1:
            return task_json("echo", rng.randbytes(20))[: rng.randrange(200)]
        case 2:
            good[rng.choice(list(good))] = rng.choice([None, 3, -1, 1e300, "", "x" * 5000, [], {}, True, "\ud800"])
            return json.dumps(good).encode("utf-8", "surrogatepass")
        case 3:
            del good[rng.choice(list(good))]
            return json.dumps(good).encode()
        case 4:
            good["payload"] = rng.choice(["%%%", "AAA", "A" * 100_001, "=", "////", 7])
            return json.dumps(good).encode()
        case 5:
            good["created"] = rng.choice(
                ["0001-01-01T00:00:00Z", "9999-99-99T99:99:99Z", "now", "2026-01-01T00:00:00.1234567891Z"]
            )
            good["tried"] = rng.choice(["0001-01-01T00:00:00Z", "2999-01-01T00:00:00Z", "", "x"])
            return json.dumps(good).encode()
        case 6:
            return b"[" * rng.randrange(1, 5000)
        case _:
            return task_json(rng.choice(["echo", "error", "no such", "a.b", "é", "x" * 300]), rng.randbytes(10))


def _headers(rng: random.Random) -> dict[str, str] | None:
    good = headers_of(4_000_000_000)
    match rng.randrange(7):
        case 0:
            return None
        case 1:
            return {}
        case 2:
            good["AJ-Handler-Deadline"] = rng.choice(
                ["", "yesterday", "2009-11-10T23:00:00Z", "9999-12-31T23:59:59Z", "1e9"]
            )
        case 3:
            good["AJ-Content-Type"] = rng.choice(["", "text/plain", "application/json", "x" * 3000])
        case 4:
            good[f"X-{rng.randrange(100)}"] = "y" * rng.randrange(4000)
        case _:
            pass
    return good


async def test_five_thousand_hostile_requests_are_each_answered_once(start_host: StartHost, router: Router) -> None:
    rng = random.Random(20260101)
    host = await start_host(
        handlers={"echo": "echo", "error": "error", "": "echo"},
        sections={"workers": {"count": 2, "backlog": 5000}},
    )
    before = host.workers()
    requests: list[Request] = []
    subjects = [
        "CHORIA_AJ.H.T.echo",
        "CHORIA_AJ.H.T.error",
        "CHORIA_AJ.H.T.catchall",
        "CHORIA.AJ.H.T.catchall",
    ]
    for _ in range(COUNT):
        request = await router.send_raw(rng.choice(subjects), _body(rng), _headers(rng), id=new_id())
        requests.append(request)
        if len(requests) % 100 == 0:
            await router.settled(requests)
    for _ in range(50):  # nobody waits for these
        await router.client.publish("CHORIA_AJ.H.T.echo", _body(rng), headers=_headers(rng))
    await router.settled(requests)
    assert (await router.request("echo", b"alive")).body == b"alive"
    counts = {len(r.replies) for r in requests}
    assert counts == {1}, [r.subject for r in requests if len(r.replies) != 1][:5]
    assert {r.verdict for r in requests} <= {Verdict.COMPLETE, Verdict.ERROR, Verdict.TERMINATE}
    assert router.unknown == 0
    assert host.workers() == before
