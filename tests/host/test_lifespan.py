"""Lifespan, middleware, and what of an application runs when its worker ends, in whatever way that is."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path

import pytest

from ajhost.core.timings import RESPAWN_FIRST
from tests.support import processes
from tests.support.factories import Enter, NewHost, StartHost
from tests.support.host import Host
from tests.support.nats import NatsServer
from tests.support.router import Router, Verdict

SHOP = """
import asyncio, atexit, contextlib, logging.handlers, os, threading, time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ajhost import Task, TerminateTask, Worker

RECORD = {record!r}

def note(text):
    with open(RECORD, "a") as record:
        record.write(f"{{os.getpid()}} {{text}}\\n")

atexit.register(note, "atexit")

@dataclass
class State:
    slot: int
    pool: list

async def lifespan(worker: Worker):
    note("enter")
    yield State(worker.slot, ["connection"])
    note("exit")

@contextlib.contextmanager
def plain(worker):
    note(f"enter {{threading.current_thread() is threading.main_thread()}}")
    yield State(worker.slot, [])
    note("exit")

async def pool(task: Task[State]):
    return {{"slot": task.state.slot, "pool": task.state.pool, "pid": os.getpid()}}

async def leave_work(task):
    async def later():
        await asyncio.sleep(0.3)
        note("background task")
    asyncio.create_task(later())
    threading.Thread(target=lambda: (time.sleep(0.3), note("background thread"))).start()
    asyncio.get_running_loop().run_in_executor(None, lambda: (time.sleep(0.3), note("executor")))
    asyncio.get_running_loop().call_later(0.8, note, "timer")
    return os.getpid()

async def leave_for_ever(task):
    asyncio.get_running_loop().call_later(3650, note, "timer")
    async def for_ever():
        await asyncio.sleep(3600)
    asyncio.create_task(for_ever())
    threading.Thread(target=time.sleep, args=(3600,), name="thread for ever").start()
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(thread_name_prefix="executor for ever"))
    asyncio.get_running_loop().run_in_executor(None, time.sleep, 3600)
    return os.getpid()

def stuck(task):
    time.sleep(3600)

async def hang(task):
    time.sleep(3600)

async def end(task):
    os._exit(1)

async def work(task):
    return os.getpid()
"""
NAMES = ("pool", "leave_work", "leave_for_ever", "stuck", "hang", "end", "work")


def _host(new_host: NewHost, tmp_path: Path, source: str = SHOP, **options: dict[str, object]) -> Host:
    sections = {
        "workers": {"count": 1, "drain_timeout": 6.0, **options.get("workers", {})},
        "python": {"lifespan": "shop:lifespan", **options.get("python", {})},
    }
    modules = {"shop": source.format(record=str(tmp_path / "record"))}
    return new_host(
        modules=modules,
        handlers={name: f"shop:{name}" for name in NAMES},
        sections=sections,
    )


def _of(record: Path, pid: int) -> list[str]:
    lines = record.read_text().splitlines()
    return [line.partition(" ")[2] for line in lines if line.startswith(f"{pid} ")]


PAGE = Path(__file__).parents[2] / "docs" / "handlers.md"
ROWS = {
    row.split(" | ")[0].removeprefix("| "): row.removesuffix(" |").split(" | ")[1:]
    for row in PAGE.read_text().partition("| a worker ends by")[2].partition("\n\n")[0].splitlines()[2:]
}
"""How a worker ends, and what becomes of: what handlers left running, its lifespan's exit, `atexit`."""
WORK = ["background task", "background thread", "executor", "timer"]
Way = Callable[[Host, Router], Awaitable[int]]


async def _leave_work(router: Router) -> int:
    pid: int = (await router.request("leave_work", {})).json()
    return pid


async def _stop(host: Host, router: Router) -> int:
    pid = await _leave_work(router)
    assert await host.terminate() == 0
    return pid


async def _reload(host: Host, router: Router) -> int:
    pid = await _leave_work(router)
    assert (await host.reload()).status == 0
    return pid


async def _recycle(host: Host, router: Router) -> int:
    pid = await _leave_work(router)
    assert (await host.command("recycle")).status == 0
    return pid


async def _max_tasks(host: Host, router: Router) -> int:
    return await _leave_work(router)


async def _retire(host: Host, router: Router) -> int:
    pid = await _leave_work(router)
    assert (await router.request("stuck", {}, deadline=3)).word == "deadline exceeded:"
    return pid


async def _lone(host: Host, router: Router) -> int:
    pid = await _leave_work(router)
    host.send_signal(signal.SIGKILL)
    await host.wait()
    await host.restart()
    return pid


async def _drain_timeout(host: Host, router: Router) -> int:
    pid: int = (await router.request("leave_for_ever", {})).json()
    host.kill(0, signal.SIGTERM)
    return pid


async def _second_signal(host: Host, router: Router) -> int:
    pid: int = (await router.request("leave_for_ever", {})).json()
    host.send_signal(signal.SIGTERM)
    await host.log("stopping")
    assert await host.terminate() == 0
    return pid


async def _hang(host: Host, router: Router) -> int:
    pid = await _leave_work(router)
    assert (await router.request("hang", {}, deadline=3)).word == "deadline exceeded:"
    return pid


async def _kill(host: Host, router: Router) -> int:
    pid = await _leave_work(router)
    host.kill(0, signal.SIGKILL)
    return pid


async def _exit(host: Host, router: Router) -> int:
    pid = await _leave_work(router)
    assert (await router.request("end", {})).word == "worker died:"
    return pid


LONG_EXIT = SHOP.replace('    note("exit")\n\n@', "    await asyncio.sleep(3600)\n\n@", 1)
BLOCKING = SHOP.replace('    note("enter")\n', '    time.sleep(2)\n    note("enter")\n', 1).replace(
    '    note("exit")\n\n@', '    time.sleep(2)\n    note("exit")\n\n@', 1
)
EXITING = SHOP.replace('    note("exit")\n\n@', '    note("exit")\n    raise SystemExit\n\n@', 1)
LONG_ATEXIT = SHOP.replace("atexit.register(", "atexit.register(time.sleep, 3600)\natexit.register(", 1)
WAYS: list[tuple[str, Way, str, dict[str, dict[str, object]]]] = [
    ("a stop", _stop, SHOP, {}),
    ("a stop", _stop, BLOCKING, {}),
    ("a stop", _stop, EXITING, {}),
    ("a reload", _reload, SHOP, {}),
    ("`ajhost recycle`", _recycle, SHOP, {}),
    ("`max_tasks`", _max_tasks, SHOP, {"workers": {"max_tasks": 1}}),
    ("a handler in a thread that cannot be stopped", _retire, SHOP, {}),
    ("the next start, if its supervisor was killed", _lone, SHOP, {}),
    ("`drain_timeout`", _drain_timeout, SHOP, {"workers": {"drain_timeout": 0.5}}),
    ("a second signal", _second_signal, SHOP, {}),
    (
        "an end whose lifespan takes more than `stop_timeout`",
        _stop,
        LONG_EXIT,
        {"python": {"stop_timeout": 0.5}},
    ),
    ("an end whose `atexit` takes more than 2 s", _stop, LONG_ATEXIT, {}),
    ("a hang", _hang, SHOP, {}),
    ("a kill", _kill, SHOP, {}),
    ("`os._exit`", _exit, SHOP, {}),
]


def test_every_row_of_the_docs_is_tried() -> None:
    assert {row for row in ROWS for name, *_ in WAYS if name in row} == set(ROWS)


@pytest.mark.parametrize(("name", "way", "source", "options"), WAYS, ids=[name for name, *_ in WAYS])
async def test_what_runs_at_the_end_of_a_worker(
    tmp_path: Path,
    new_host: NewHost,
    enter: Enter,
    router: Router,
    name: str,
    way: Way,
    source: str,
    options: dict[str, dict[str, object]],
) -> None:
    (left, exit_, at_exit) = next(cells for row, cells in ROWS.items() if name in row)
    host = await enter(_host(new_host, tmp_path, source, **options))
    pid = await way(host, router)
    await processes.gone(pid)
    found = _of(tmp_path / "record", pid)
    assert found[0] == "enter"
    work = [text for text in found if text in WORK]
    ends = [text for text in found[1:] if text not in WORK]
    assert ends == ["exit"] * (exit_ == "left") + ["atexit"] * at_exit.startswith(("run", "cut"))
    told = host.log_text()
    if left == "awaited":
        assert sorted(work) == WORK
        assert found.index(ends[0]) > 4, "what handlers left came first"
    assert ("background tasks of handlers are cut: leave_for_ever" in told) == (left == "cut, named")
    assert ("1 timers of handlers are cut: note (in 36" in told) == (left == "cut, named")
    threads = "2 threads of handlers are cut: thread for ever, executor for ever_0"
    assert (threads in told) == (left == "cut, named")
    assert ("python.lifespan: shop:lifespan did not end within 0.5 s" in told) == (exit_ == "cut, told")
    assert ("what atexit runs did not end within 2 s: cut at" in told) == (at_exit == "cut, told")


GUARDED = """
KEPT = logging.handlers.MemoryHandler(1000, target=logging.FileHandler(RECORD + ".log", delay=True))
logging.getLogger("shop").addHandler(KEPT)

async def guarded(worker):
    print("entering", flush=True)
    while not os.path.exists(RECORD + ".open"):
        await asyncio.sleep(0.01)
    yield
    note("leaving")
    while not os.path.exists(RECORD + ".close"):
        await asyncio.sleep(0.01)
    note("exit")

async def work(task):
    await asyncio.sleep(0.3)
    note("worked")
    logging.getLogger("shop").warning("kept in memory")
"""


async def test_a_worker_joins_when_its_lifespan_is_entered_and_leaves_that_after_its_last_reply(
    tmp_path: Path, new_host: NewHost, router: Router
) -> None:
    host = _host(new_host, tmp_path, SHOP + GUARDED, python={"lifespan": "shop:guarded"})
    record = tmp_path / "record"
    await host.launch()
    await host.log("entering")
    assert (await router.request("work", {})).verdict is Verdict.NO_RESPONDERS
    record.with_suffix(".open").touch()
    await host.ready()
    request = await router.send("work", {}, deadline=10)
    await host.running(1)
    (pid,) = host.workers().values()
    host.send_signal(signal.SIGTERM)
    await router.settled([request])
    assert request.verdict is Verdict.COMPLETE
    record.with_suffix(".close").touch()
    assert await host.wait() == 0
    assert _of(record, pid) == ["worked", "leaving", "exit", "atexit"]
    assert record.with_suffix(".log").read_text() == "kept in memory\n", "it was flushed"


async def test_the_state_of_a_lifespan_is_the_tasks(
    tmp_path: Path, new_host: NewHost, enter: Enter, router: Router
) -> None:
    host = await enter(_host(new_host, tmp_path))
    reply = (await router.request("pool", {})).json()
    assert reply == {"slot": 0, "pool": ["connection"], "pid": host.workers()[0]}


async def test_a_plain_context_manager_is_entered_in_a_thread(
    tmp_path: Path, new_host: NewHost, enter: Enter, router: Router
) -> None:
    host = await enter(_host(new_host, tmp_path, python={"lifespan": "shop:plain"}))
    assert (await router.request("pool", {})).json()["slot"] == 0
    pid = host.workers()[0]
    assert await host.terminate() == 0
    assert _of(tmp_path / "record", pid) == ["enter False", "exit", "atexit"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("raise RuntimeError('no database')", "RuntimeError: no database"),
        ("raise SystemExit('no settings')", "raised SystemExit: no settings"),
        ("await asyncio.sleep(3600)", r"took more than 1 s, in line \d+ of \S+/shop\.py"),
        (
            "yield; return\ndef lifespan(worker):\n    time.sleep(5)",
            r"took more than 1 s, in line \d+ of \S+/shop",
        ),
        ("return", "raised RuntimeError: generator didn't yield"),
    ],
)
async def test_a_lifespan_that_fails_rejects_a_reload_and_says_why(
    tmp_path: Path, new_host: NewHost, enter: Enter, router: Router, body: str, said: str
) -> None:
    host = await enter(_host(new_host, tmp_path, python={"start_timeout": 1.0}))
    source = SHOP.replace('    note("enter")\n    yield State(w', f"    {body}\n    yield State(w", 1)
    host.write_module("shop", source.format(record=str(tmp_path / "record")))
    result = await host.reload()
    assert result.status == 1
    assert "python.lifespan: shop:lifespan" in result.stderr
    assert re.search(said, result.stderr), result.stderr
    assert (await router.request("pool", {})).json()["pool"] == ["connection"]


async def test_a_reload_has_the_time_that_each_lifespan_takes(
    tmp_path: Path, new_host: NewHost, enter: Enter, router: Router
) -> None:
    source = SHOP.replace('    note("enter")\n', "    await asyncio.sleep(2)\n", 1)
    host = await enter(_host(new_host, tmp_path, source, workers={"count": 3}))
    result = await host.reload()
    assert result.status == 0, result.stderr
    assert (await router.request("pool", {})).body


async def test_check_enters_the_lifespan_too(nats_server: NatsServer, tmp_path: Path, new_host: NewHost) -> None:
    source = SHOP.replace('    note("enter")\n', "    raise OSError('no database')\n", 1)
    host = _host(new_host, tmp_path, source)
    result = await host.command("check")
    assert result.status == 78
    assert "python.lifespan: shop:lifespan raised OSError: no database" in result.stderr.splitlines()[-1]


async def test_a_lifespan_that_fails_at_the_start_is_told_and_tried_again(
    tmp_path: Path, new_host: NewHost, router: Router
) -> None:
    flag = tmp_path / "there"
    source = SHOP.replace(
        '    note("enter")\n',
        f"    if not os.path.exists({str(flag)!r}): raise OSError('no database yet')\n",
        1,
    )
    host = _host(new_host, tmp_path, source)
    await host.launch()
    failed: list[float] = []
    since = 0
    for _ in range(5):
        line = await host.log("shop:lifespan raised OSError: no database yet", since=since)
        failed.append(datetime.fromisoformat(line.text[:23]).timestamp())
        since = host.output.lines.index(line) + 1
        await host.log("Traceback", since=since)
    assert failed[4] - failed[3] >= RESPAWN_FIRST * 4, "pauses grow"
    flag.touch()
    await host.ready()
    assert (await router.request("work", {})).body


@pytest.mark.parametrize(
    ("python", "said"),
    [
        ({"lifespan": "shop:missing"}, "python.lifespan: shop ("),
        ({"lifespan": "shop:work"}, "python.lifespan: shop:work returns a coroutine"),
        ({"middleware": ["shop:stuck"]}, "python.middleware[0]: shop:stuck is no middleware"),
        ({"middleware": ["nowhere:x"]}, "python.middleware[0]: there is no module 'nowhere'"),
    ],
)
async def test_what_is_no_lifespan_and_no_middleware_is_told_at_the_start(
    nats_server: NatsServer, tmp_path: Path, new_host: NewHost, python: dict[str, object], said: str
) -> None:
    host = _host(new_host, tmp_path, python=python)
    assert await host.run_to_end() == 70
    assert said in host.log_text()


AROUND = """
import asyncio, contextvars, threading, time
from ajhost import TerminateTask

seen = contextvars.ContextVar("seen", default="nothing")

async def outer(task, call):
    seen.set("set by the middleware")
    try:
        return {"outer": await call(task)}
    except LookupError as error:
        raise TerminateTask(f"seen: {error!r}")

async def inner(task, call):
    return {"inner": await call(task)}

async def loop(task):
    return seen.get()

def thread(task):
    assert threading.current_thread() is not threading.main_thread()
    return seen.get()

def broken(task):
    raise KeyError("x")

def stuck(task):
    time.sleep(5)
"""


async def test_middleware_is_around_handlers_on_the_loop_and_in_threads(start_host: StartHost, router: Router) -> None:
    host = await start_host(
        modules={"shop": AROUND},
        handlers={name: f"shop:{name}" for name in ("loop", "thread", "broken", "stuck")},
        sections={
            "workers": {"count": 1, "drain_timeout": 1.0},
            "python": {"middleware": ["shop:outer", "shop:inner"]},
        },
    )
    for name in ("loop", "thread"):
        reply = await router.request(name, {})
        assert reply.json() == {"outer": {"inner": "set by the middleware"}}
    assert (await router.request("broken", {})).text == "seen: KeyError('x')"
    replies = await asyncio.gather(*(router.request("thread", {}) for _ in range(100)))
    assert {reply.body for reply in replies} == {b'{"outer":{"inner":"set by the middleware"}}'}
    pid = host.workers()[0]
    assert (await router.request("stuck", {}, deadline=3)).word == "deadline exceeded:"
    await host.log(f"(pid {pid}) is replaced: a handler that cannot be stopped")
    assert (await router.request("loop", {}, deadline=10)).body
