"""`ajhost.testing`: a handler run as a worker runs it, without one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import ajhost
from ajhost import Task, TerminateTask, Worker
from ajhost.roles.handlers import NoHandler
from ajhost.testing import Outcome, lifespan, make_task, run, run_sync


@dataclass
class Mail:
    to: str


async def send(mail: Mail, task: Task[str]) -> dict[str, object]:
    logging.getLogger("shop").info("sending to %s", mail.to)
    return {"sent": mail.to, "type": task.type, "tries": task.tries, "state": task.state}


def lookup(task: Task) -> Any:
    what = task.json()
    if what == "unknown":
        raise TerminateTask("no such customer")
    if what == "down":
        raise ConnectionError("the database\nis down")
    return what


async def test_a_typed_handler_runs_and_its_result_is_decoded() -> None:
    outcome = await run(send, Mail("ada"), type="email:new", tries=3, state="open")
    assert outcome.json() == {"sent": "ada", "type": "email:new", "tries": 3, "state": "open"}
    assert (outcome.error, outcome.terminated) == (None, False)


def test_a_plain_function_runs_in_a_thread_without_a_loop_of_the_tests_own() -> None:
    outcome = run_sync(lookup, "[1, 2]")
    assert outcome.result == b"[1,2]"
    assert outcome.text == "[1,2]"


@pytest.mark.parametrize(
    ("handler", "payload", "error", "terminated"),
    [
        (lookup, b'"unknown"', "no such customer", True),
        (lookup, b'"down"', "handler error: ConnectionError: the database is down", False),
        (lookup, None, "invalid payload: there is none to read as JSON", True),
        (send, {}, "invalid payload: mail.to: field required", True),
        (lambda task: object(), {}, "invalid result: result: object cannot be encoded as JSON", True),
        (lambda task: b"x" * (1 << 20), {}, "result too large to be stored", True),
    ],
)
async def test_the_error_is_what_the_router_would_store(
    handler: Any, payload: object, error: str, terminated: bool
) -> None:
    outcome = await run(handler, payload)
    assert outcome.error is not None
    assert outcome.error.startswith(error)
    assert (outcome.result, outcome.terminated) == (None, terminated)
    with pytest.raises(AssertionError, match="there is no result"):
        outcome.json()


@pytest.mark.parametrize(
    ("limits", "whose"),
    [({"deadline": 0.1}, "the task's deadline"), ({"timeout": 0.1}, "the route's timeout")],
)
async def test_a_deadline_ends_a_handler_as_in_a_worker(limits: dict[str, float], whose: str) -> None:
    cancelled = asyncio.Event()

    async def slow(task: Task) -> None:
        try:
            await asyncio.sleep(30)
        finally:
            cancelled.set()

    outcome = await run(slow, **limits)  # type: ignore[arg-type]
    assert outcome.error is not None
    assert outcome.error.startswith("deadline exceeded: ")
    assert whose in outcome.error
    assert cancelled.is_set()
    assert outcome.seconds < 30


async def test_the_log_of_the_task_and_no_other_is_kept() -> None:
    async def noisy(task: Task) -> None:
        await asyncio.gather(asyncio.sleep(0))
        logging.getLogger("shop").warning("of %s", task.type)

    one, two = await asyncio.gather(run(noisy, type="one"), run(noisy, type="two"))
    assert [[r.getMessage() for r in o.log] for o in (one, two)] == [["of one"], ["of two"]]
    failed = await run(lookup, b'"down"')
    (record,) = failed.log
    assert record.exc_info is not None


def test_a_task_has_what_it_was_made_with() -> None:
    when = datetime.now(UTC) + timedelta(seconds=100)
    created = datetime(2026, 1, 31, tzinfo=UTC)
    task = make_task(
        {"a": 1}, type="t", id="ID", queue="Q", tries=2, max_tries=3, deadline=when, created=created,
        dependency_results={"D": 1 << 70, "E": {"payload": "x", "completed": "2026-01-31T00:00:00Z"}},
        state=7,
    )  # fmt: skip
    assert (task.id, task.type, task.queue, task.tries, task.max_tries) == ("ID", "t", "Q", 2, 3)
    assert (task.payload, task.state, task.created) == (b'{"a":1}', 7, created)
    assert 90 < task.remaining() <= 100
    assert task.dependencies == ("D", "E")
    assert task.dependency_results["D"]["payload"] == 1 << 70
    assert task.dependency_results["E"] == {"payload": "x", "completed": "2026-01-31T00:00:00Z"}


async def test_a_task_made_by_hand_can_be_run() -> None:
    outcome = await run(send, make_task({"to": "ada"}, type="email:new", state=1))
    assert outcome.json()["type"] == "email:new"


def test_a_task_that_no_router_sends_is_refused() -> None:
    with pytest.raises(ValueError, match="type must be letters"):
        make_task(type="no spaces")


async def test_a_handler_is_found_by_its_name_as_in_the_settings() -> None:
    assert (await run("tests.support.handlers:echo", b"as it came")).result == b"as it came"


async def test_what_is_no_handler_is_told_as_check_tells_it() -> None:
    with pytest.raises(NoHandler, match="cannot be called with one argument, the task"):
        await run(lambda *, a=None: a)


def test_a_sleeping_thread_does_not_hold_the_answer() -> None:
    wake, ended = threading.Event(), threading.Event()

    def sleep(task: Task) -> None:
        wake.wait()
        ended.set()

    outcome: Outcome = run_sync(sleep, deadline=0.1)
    assert outcome.error is not None
    assert not ended.is_set()
    wake.set()


def test_a_handler_that_swallows_its_cancellation_does_not_hold_the_test() -> None:
    async def stubborn() -> None:
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)

    assert str(run_sync(stubborn, deadline=0.1).error).startswith("deadline exceeded: ")


async def test_terminate_task_in_a_task_group_ends_the_task() -> None:
    async def unknown() -> None:
        raise TerminateTask("no such customer")

    async def handler() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(60))
            group.create_task(unknown())

    outcome = await run(handler)
    assert (outcome.terminated, outcome.error) == (True, "no such customer")


@pytest.fixture(scope="session")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that finds orjson, pydantic and what that needs, and nothing else."""
    site = tmp_path_factory.mktemp("bare")
    for name in (
        "orjson",
        "pydantic",
        "pydantic_core",
        "annotated_types",
        "typing_extensions",
        "typing_inspection",
    ):
        spec = __import__("importlib.util").util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        found = Path(spec.origin)
        if spec.submodule_search_locations is not None:
            found = found.parent
        (site / found.name).symlink_to(found)
    (site / "ajhost").symlink_to(ajhost.__path__[0])
    return site


def test_importing_it_needs_orjson_and_pydantic_alone(bare_python: Path) -> None:
    code = (
        "import sys\nimport ajhost\nfrom ajhost.testing import run_sync\n"
        "def send(mail: dict[str, int]): return {'n': mail['n'] + 1}\n"
        "assert run_sync(send, {'n': 1}).json() == {'n': 2}\n"
        "print(sorted({m.partition('.')[0] for m in sys.modules} - sys.stdlib_module_names))\n"
    )
    # -S: no site-packages
    told = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={"PYTHONPATH": str(bare_python)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    names = {name for name in eval(told.stdout) if not name.startswith(("_", "sitecustom"))}
    assert names <= {
        *("ajhost", "annotated_types", "orjson", "pydantic", "pydantic_core"),
        *("typing_extensions", "typing_inspection"),
    }


def test_a_command_where_nothing_else_is_installed_says_what_it_needs(bare_python: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-S", "-m", "ajhost", "dev"],
        env={"PYTHONPATH": str(bare_python)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert told.returncode == 70
    assert told.stderr.startswith("the commands of ajhost need click, which is not installed here: pip install")


async def opened(worker: Worker) -> AsyncIterator[list[str]]:
    connections = [f"of worker {worker.slot}"]
    yield connections
    connections.append("closed")


class Opener:
    async def __call__(self, worker: Worker) -> AsyncIterator[str]:
        yield "called"

    async def opened(self, worker: Worker) -> AsyncIterator[str]:
        yield "method"


def returns_a_generator(worker: Worker) -> Iterator[str]:
    return (text for text in ["generator"])


@pytest.mark.parametrize(
    ("function", "state"),
    [(Opener(), "called"), (Opener().opened, "method"), (returns_a_generator, "generator")],
    ids=["an object", "a method", "a function that returns one"],
)
async def test_whatever_makes_a_generator_is_a_lifespan(function: Callable[..., Any], state: str) -> None:
    async with lifespan(function) as entered:
        assert entered == state


async def test_a_lifespan_gives_its_state_to_a_handler() -> None:
    async def uses(task: Task[list[str]]) -> list[str]:
        return task.state

    async with lifespan(opened) as state:
        outcome = await run(uses, state=state)
        assert outcome.json() == ["of worker 0"]
    assert state == ["of worker 0", "closed"]


@pytest.mark.parametrize("kind", ["loop", "thread"])
async def test_middleware_is_around_a_handler(kind: str) -> None:
    async def outer(task: Task, call: Callable[[Task], Awaitable[object]]) -> object:
        return [task.type, await call(task)]

    async def inner(task: Task, call: Callable[[Task], Awaitable[object]]) -> object:
        try:
            return await call(task)
        except KeyError:
            raise TerminateTask("no such key") from None

    async def on_loop(number: int) -> int:
        return {1: 2}[number]

    def in_thread(number: int) -> int:
        return {1: 2}[number]

    handler = on_loop if kind == "loop" else in_thread
    assert (await run(handler, 1, middleware=[outer, inner])).json() == ["test", 2]
    failed = await run(handler, 3, middleware=[outer, inner])
    assert (failed.error, failed.terminated) == ("no such key", True)
