"""asyncjobs as a library: every outcome, as the task store has it in the end."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.factories import NewHost
from tests.support.nats import NatsServer
from tests.support.program import run


@dataclass(frozen=True, slots=True)
class Stored:
    """A task as the store has it, its result decoded, and what happened to it on the way."""

    id: str
    type: str
    state: str
    tries: int
    last_error: str
    result: bytes | None
    states: tuple[str, ...]
    errors: tuple[str, ...]


async def route_tasks(
    program: Path,
    server: NatsServer,
    routes: Sequence[str],
    tasks: Sequence[tuple[str, Mapping[str, Any] | None, int]],
    *,
    timeout: float = 60.0,
    **plan: Any,
) -> list[Stored]:
    """Lets the real router have `tasks` (type, payload, how many) done by whoever serves `routes`."""
    batches = [{"type": kind, "payload": payload, "count": count} for kind, payload, count in tasks]
    text = json.dumps(
        {"url": server.url, "routes": list(routes), "tasks": batches, "timeout": int(timeout * 1000), **plan}
    )
    result = await run(program, stdin=text.encode(), timeout=timeout + 30)
    assert result.status == 0, result
    report = json.loads(result.stdout)
    stored = [
        Stored(
            id=task["id"],
            type=task["type"],
            state=task["state"],
            tries=task["tries"],
            last_error=task["last_error"],
            result=None if task["result"] is None else base64.b64decode(task["result"]),
            states=tuple(task["states"] or ()),
            errors=tuple(task["errors"] or ()),
        )
        for task in report["tasks"]
    ]
    assert report["missing"] == 0, (Counter(task.state for task in stored), result.stderr)
    return stored


async def test_each_outcome_is_stored_as_what_it_is(
    library_router: Path, jetstream: NatsServer, new_host: NewHost
) -> None:
    async with new_host(handlers={"test": "work"}):
        tasks = await route_tasks(
            library_router,
            jetstream,
            ["test"],
            [
                ("test", {"kind": "ok"}, 1),
                ("test", {"kind": "error", "text": "down"}, 1),
                ("test", {"kind": "terminate", "text": "never"}, 1),
            ],
            # long enough to find the failed one waiting
            settled=["complete", "terminated", "retry"],
            backoff=3_600_000,
        )
    by_state = {task.state: task for task in tasks}
    assert set(by_state) == {"complete", "terminated", "retry"}
    complete, terminated, retry = by_state["complete"], by_state["terminated"], by_state["retry"]
    assert complete.result is not None
    assert json.loads(complete.result)["id"] == complete.id
    assert (complete.tries, complete.last_error) == (1, "")
    assert (terminated.tries, terminated.last_error) == (1, "never: terminate task")
    assert (retry.tries, retry.result) == (1, None)
    assert retry.last_error.startswith("handler error:")
    assert "down" in retry.last_error


FLAKY = """\
from ajhost import Task

async def on_the_third_try(task: Task) -> dict[str, int]:
    if task.tries < 3:
        raise RuntimeError(f"not on try {task.tries}")
    return {"tries": task.tries}
"""


async def test_a_failed_task_comes_back_until_it_completes(
    library_router: Path, jetstream: NatsServer, new_host: NewHost
) -> None:
    handlers = {"test": "flaky:on_the_third_try"}
    async with new_host(handlers=handlers, modules={"flaky": FLAKY}):
        [task] = await route_tasks(library_router, jetstream, ["test"], [("test", None, 1)], max_tries=5)
    assert (task.state, task.tries, task.result) == ("complete", 3, b'{"tries":3}')
    assert [error[-5:] for error in task.errors] == ["try 1", "try 2"]


async def test_bytes_are_stored_unmodified(library_router: Path, jetstream: NatsServer, new_host: NewHost) -> None:
    modules = {"raw": "def every_byte(task):\n    return bytes(range(256))\ndef nothing(task):\n    return None\n"}
    handlers = {"bytes": "raw:every_byte", "nothing": "raw:nothing"}
    async with new_host(handlers=handlers, modules=modules):
        tasks = await route_tasks(
            library_router, jetstream, ["bytes", "nothing"], [("bytes", None, 1), ("nothing", None, 1)]
        )
    results = {task.type: (task.state, task.result) for task in tasks}
    assert results == {"bytes": ("complete", bytes(range(256))), "nothing": ("complete", b"")}


async def test_prefix_and_catch_all_routes_are_served(
    library_router: Path, jetstream: NatsServer, new_host: NewHost
) -> None:
    handlers = {"email:": "describe", "email:new": "describe", "": "describe"}
    kinds = ("email:new", "email:old", "sms")
    async with new_host(handlers=handlers):
        tasks = await route_tasks(
            library_router, jetstream, ["email:", "email:new", ""], [(kind, {"n": 1}, 5) for kind in kinds]
        )
    assert Counter((task.type, task.state) for task in tasks) == {(kind, "complete"): 5 for kind in kinds}
    for task in tasks:
        assert task.result is not None
        seen = json.loads(task.result)
        assert (seen["id"], seen["type"], json.loads(seen["payload"])) == (task.id, task.type, {"n": 1})


async def test_a_task_past_its_deadline_is_retried_with_the_reason(
    library_router: Path, jetstream: NatsServer, new_host: NewHost
) -> None:
    async with new_host(handlers={"slow": "work"}):
        [task] = await route_tasks(
            library_router,
            jetstream,
            ["slow"],
            [("slow", {"sleep_ms": 60_000}, 1)],
            settled=["complete", "terminated", "retry"],
            max_run_time=5_000,
            backoff=3_600_000,
        )
    assert (task.state, task.tries) == ("retry", 1)
    assert task.last_error.startswith("deadline exceeded:")


async def test_signed_tasks_are_verified(library_router: Path, jetstream: NatsServer, new_host: NewHost) -> None:
    # RFC 8032, 7.1, test 1
    seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
    public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    stranger = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    for key, state in ((public, "complete"), (stranger, "retry")):
        sections = {"signature": {"keys": [key]}}
        async with new_host(handlers={"test": "work"}, sections=sections):
            [task] = await route_tasks(
                library_router,
                jetstream,
                ["test"],
                [("test", {"kind": "ok"}, 1)],
                settled=["complete", "terminated", "retry"],
                backoff=3_600_000,
                signing_seed=seed,
                queue=f"SIGNED{state}",
            )
        assert task.state == state, task


async def test_two_thousand_tasks_all_complete(
    library_router: Path, jetstream: NatsServer, tmp_path: Path, new_host: NewHost
) -> None:
    record = tmp_path / "runs"
    handlers = {"email:": "work", "": "work"}
    async with new_host(handlers=handlers, sections={"workers": {"count": 4}}):
        tasks = await route_tasks(
            library_router,
            jetstream,
            ["email:", ""],
            [("email:new", {"record": str(record)}, 1000), ("sms", {"record": str(record)}, 1000)],
            timeout=120.0,
        )
    assert Counter((task.type, task.state, task.tries) for task in tasks) == {
        ("email:new", "complete", 1): 1000,
        ("sms", "complete", 1): 1000,
    }
    runs = Counter(line.split()[0] for line in record.read_text().splitlines())
    assert runs == {task.id: 1 for task in tasks}
