"""The runbook: each situation is made on a real host, and the one command prints what docs/runbook.md shows."""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import pytest_asyncio

from ajhost.ledger.layout import State
from ajhost.roles.control_client import control
from tests.support import runbook
from tests.support.certificates import self_signed
from tests.support.factories import NewHost, StartHost, StartServer
from tests.support.host import Host
from tests.support.nats import NatsServer
from tests.support.router import Router, Verdict

SHOP = """
import asyncio, ctypes, os, signal, threading, time
from dataclasses import dataclass

from ajhost import Task

BANK: list[asyncio.Future[str]] = []
IN_STOCK = threading.Event()
CACHE = []
C = ctypes.PyDLL(None)


@dataclass
class Mail:
    to: str


async def ask_the_bank() -> str:
    answer = asyncio.get_running_loop().create_future()
    BANK.append(answer)
    return await answer


async def charge(task: Task) -> None:
    await ask_the_bank()


def reserve(task: Task) -> None:
    IN_STOCK.wait()


async def render(task: Task) -> None:
    C.usleep(task.json()["us"])


async def resize(task: Task) -> None:
    end = time.monotonic() + task.json()["s"]
    while time.monotonic() < end:
        pass


async def report(task: Task) -> None:
    await asyncio.sleep(task.json()["s"])


async def send(mail: Mail) -> None:
    raise ConnectionError("the mail server does not answer")


async def parse(task: Task) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


async def cache(task: Task) -> None:
    CACHE.append(b"x" * (150 << 20))


def quick(task: Task) -> str:
    return "done"
"""
TARGETS = {
    "card:charge": "charge", "stock:reserve": "reserve", "invoice:render": "render", "image:resize": "resize",
    "report:nightly": "report", "email:new": "send", "upload:parse": "parse", "page:cache": "cache",
    "sms:send": "quick",
}  # fmt: skip
HANDLERS: dict[str, str | dict[str, Any]] = {route: f"shop:{name}" for route, name in TARGETS.items()}
HANDLERS["report:nightly"] = {"target": "shop:report", "concurrency": 1}
SECTIONS = {"workers": {"count": 2, "concurrency": 4, "backlog": 4, "kill_grace": 60.0, "drain_timeout": 1.0}}
LOOKS_FOR = 30.0
"""Seconds for which an operator looks again at what does not fit."""
pytestmark = pytest.mark.asyncio(loop_scope="module")
own_peers = pytest.mark.asyncio(loop_scope="function")
"""What a test starts itself ends with it, in its own loop."""


class Operator:
    """Somebody who types what the runbook says, to a host."""

    def __init__(self, host: Host, server: str, places: Mapping[str, str] = MappingProxyType({})) -> None:
        self.host = host
        self._places = {
            str(host.file): "/etc/ajhost/ajhost.toml", str(host.runtime): "/run/ajhost",
            str(host.application): "/srv/shop", str(host.directory): "/etc/ajhost", socket.gethostname(): "web-2",
            server.partition("://")[2]: "127.0.0.1:4222", f"{sys.base_prefix}/lib": "/usr/lib",
        } | dict(places)  # fmt: skip

    async def sees(self, situation: str, *command: str, status: int = 0) -> str:
        """Runs the command of a situation until it prints what the page shows; what it printed.

        The page shows a state, and the first look may come in a moment on the way there.
        """
        typed = shlex.join(("ajhost", *command))
        end = time.monotonic() + LOOKS_FOR
        while True:
            done = await self.host.command(*command, timeout=60.0)
            text = done.stdout + done.stderr
            fits = done.status == status and runbook.fits(situation, typed, text, self._places)
            if fits or time.monotonic() > end:
                break
        runbook.compare(situation, typed, text, self._places)
        assert done.status == status, done
        return text


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def host(server: NatsServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Host]:
    folder = tmp_path_factory.mktemp("host")
    async with Host(folder, nats=server.url, handlers=HANDLERS, modules={"shop": SHOP}, sections=SECTIONS) as running:
        yield running


@pytest.fixture(scope="module")
def operator(host: Host, server: NatsServer) -> Operator:
    return Operator(host, server.url)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def router(server: NatsServer, host: Host) -> AsyncIterator[Router]:
    async with Router(server.url) as connected:
        yield connected


async def calm(host: Host, *tasks: str) -> None:
    """Ends what a situation has left, so that the next one begins alone."""
    for task in tasks:
        await asyncio.to_thread(control, host.runtime, 10.0, {"ask": "cancel", "task": task, "settings": host.file})
    async with asyncio.timeout(20):
        while host.in_ledgers(State.STARTED, State.RECEIVED, State.QUEUED):  # noqa: ASYNC110  # shared memory signals nothing
            await asyncio.sleep(0.02)


async def test_a_task_that_awaits_for_ever(operator: Operator, router: Router, host: Host) -> None:
    task = await router.send("card:charge", deadline=60)
    await host.running(1)
    await operator.sees("stuck-await", "stacks", task.id)
    await calm(host, task.id)


async def test_a_thread_that_is_stuck(operator: Operator, router: Router, host: Host) -> None:
    task = await router.send("stock:reserve", deadline=60)
    await host.running(1)
    await operator.sees("stuck-thread", "stacks", task.id)
    await operator.sees("oldest-task", "tasks", "--older", "100ms")
    await calm(host, task.id)


async def test_a_task_that_fails_at_each_try(operator: Operator, router: Router) -> None:
    task = await router.send("email:new", {"to": "ada"})
    await router.settled([task])
    for tries in (2, 3):
        again = await router.send("email:new", {"to": "ada"}, id=task.id, tries=tries)
        await router.settled([again])
    await operator.sees("retry", "attempts", task.id)
    every = json.loads((await operator.host.command("attempts", "--json")).stdout)
    assert [a["tries"] for a in every if a["id"] == task.id] == [3, 2, 1]
    mistyped = await operator.host.command("attempts", "--reason", "handler errors")
    assert (mistyped.status, "handler error, deadline exceeded, " in mistyped.stderr) == (0, True), mistyped
    of_a_type = json.loads((await operator.host.command("attempts", "--json", "--type", "email:new")).stdout)
    assert {a["type"] for a in of_a_type} == {"email:new"}


async def test_what_does_not_fit_a_handler(operator: Operator, router: Router) -> None:
    assert (await router.request("email:new", {"too": "ada"})).verdict is Verdict.TERMINATE
    await operator.sees("invalid-payload", "attempts", "--reason", "invalid payload")


async def test_a_task_that_kills_its_workers(operator: Operator, router: Router) -> None:
    assert (await router.request("upload:parse")).word == "worker died:"
    await operator.sees("poison", "attempts", "--reason", "worker died")


async def test_a_task_past_its_deadline(operator: Operator, router: Router) -> None:
    # long enough for the handler to have begun, which the page shows
    assert (await router.request("report:nightly", {"s": 60}, deadline=4)).word == "deadline exceeded:"
    await operator.sees("deadline", "attempts", "--reason", "deadline exceeded")


async def test_a_backlog_and_what_is_refused(operator: Operator, router: Router, host: Host) -> None:
    tasks = []
    for count in range(1, 7):  # one by one, so that each of the two workers has room for whichever it gets
        tasks.append(await router.send("report:nightly", {"s": 60}, deadline=60))
        async with asyncio.timeout(10):
            while host.in_ledgers(State.STARTED, State.RECEIVED, State.QUEUED) < count:  # noqa: ASYNC110  # as in `calm`
                await asyncio.sleep(0.01)
    await host.running(2)
    await operator.sees("backlog", "status")
    more = [await router.send("report:nightly", {"s": 60}, deadline=60) for _ in range(8)]
    async with asyncio.timeout(10):
        while not any(request.replies for request in more):
            await router.barrier()
    await operator.sees("overloaded", "attempts", "--reason", "overloaded")
    await calm(host, *(task.id for task in (*tasks, *more)))


async def test_a_worker_that_computes_all_the_time(operator: Operator, router: Router, host: Host) -> None:
    task = await router.send("image:resize", {"s": 60}, deadline=60)
    line = await host.log("hangs", timeout=40)
    await operator.sees("hung", "status", status=1)
    await operator.sees("busy-loop", "stacks", task.id)
    os.kill(int(line.text.partition("(pid ")[2].partition(")")[0]), signal.SIGKILL)
    await router.settled([task])
    await calm(host)


async def test_c_code_that_holds_the_interpreter(operator: Operator, router: Router, host: Host) -> None:
    lines = len(host.log_text().splitlines())
    task = await router.send("invoice:render", {"us": 3_000_000}, deadline=60)
    await host.log("hangs", since=lines)
    await operator.sees("gil-held", "stacks", task.id)
    await calm(host)


async def test_memory_that_grows(operator: Operator, router: Router) -> None:
    await router.request("page:cache")
    text = await operator.sees("memory", "top")
    assert any(int(size) > 150 for size in re.findall(r"(\d+) MiB", text))


async def test_a_type_that_nobody_serves(operator: Operator) -> None:
    await operator.sees("routes", "routes")


async def test_a_reload_with_a_fault(operator: Operator, host: Host) -> None:
    host.write_module("shop", "import jinja3\n")
    await operator.sees("reload-rejected", "reload", status=1)
    host.write_module("shop", "import time\ntime.sleep(60)\n")
    host.configure(HANDLERS, SECTIONS | {"python": {"import_timeout": 3.0}})
    await operator.sees("hung-import", "reload", status=1)
    host.write_module("shop", "import os\ndef lifespan(worker):\n    os._exit(9)\n" + SHOP)
    host.configure(HANDLERS, SECTIONS | {"python": {"lifespan": "shop:lifespan"}})
    await operator.sees("crash-at-start", "reload", status=1)
    host.configure({**HANDLERS, "sms:send": "shop:sent"}, {"workers": {"count": 0}})
    await operator.sees("settings", "check", status=78)
    host.configure(HANDLERS, SECTIONS)


async def test_a_host_that_is_drained(operator: Operator, host: Host) -> None:
    assert (await host.command("drain", "--wait", "--timeout", "20")).status == 0
    await operator.sees("draining", "status", status=1)
    assert (await host.command("resume")).status == 0
    await serving(host, 2)


async def test_a_server_that_lets_nobody_in_or_is_away(operator: Operator, host: Host, server: NatsServer) -> None:
    await server.reload("authorization { user: host, password: pw }")
    await serving(host, 0)
    await operator.sees("locked-out", "status", status=1)
    await server.reload("")
    await serving(host, 2)
    await server.stop()
    async with asyncio.timeout(LOOKS_FOR):
        while "refused" not in str((await host.status())["workers"]):
            pass
    await operator.sees("nats-away", "status", status=1)
    host.send_signal(signal.SIGKILL)
    await host.wait()
    await operator.sees("no-host", "status", status=3)


async def serving(host: Host, count: int) -> None:
    async with asyncio.timeout(LOOKS_FOR):
        while (await host.status())["serving"] != count:
            pass


@own_peers
async def test_what_the_server_does_not_allow(start_server: StartServer, new_host: NewHost) -> None:
    allowed = '{subscribe: ["_INBOX.>"], publish: ["_INBOX.>"]}'
    config = f"authorization {{ users = [{{user: host, password: pw, permissions: {allowed}}}] }}"
    server = await start_server(config=config)
    host = new_host(
        handlers={"sms:send": "shop:quick"},
        modules={"shop": SHOP},
        sections={"nats": {"user": "host", "password": "pw"}, "runtime": {"user": getpass.getuser()}},
    )
    await Operator(host, server.url).sees("permission", "check", "--connect", status=78)


@own_peers
async def test_a_host_in_another_queue_group(
    start_server: StartServer, new_host: NewHost, start_host: StartHost
) -> None:
    server = await start_server()
    handlers, modules = {"sms:send": "shop:quick", "email:new": "shop:send"}, {"shop": SHOP}
    sections: dict[str, dict[str, Any]] = {"nats": {"queue_group": "ajhost2"}, "workers": {"count": 1}}
    ours = new_host(
        handlers=handlers,
        modules=modules,
        sections={"runtime": {"user": getpass.getuser()}},
    )
    other = await start_host(handlers=handlers, modules=modules, sections=sections)
    operator = Operator(ours, server.url, {str(other.runtime): "/run/ajhost"})
    await operator.sees("queue-groups", "check", "--connect", status=78)
    itself = await other.command("check", "--connect")
    assert (itself.status, "queue_group" in itself.stderr) == (0, False), itself


@own_peers
async def test_a_certificate_that_is_not_trusted(tmp_path: Path, start_server: StartServer, new_host: NewHost) -> None:
    certificate, key = self_signed(tmp_path)
    other, _ = self_signed(tmp_path, "other")
    config = f'tls {{ cert_file: "{certificate}", key_file: "{key}" }}'
    server = await start_server(config=config)
    host = new_host(
        nats=server.url.replace("nats:", "tls:"),
        handlers={"sms:send": "shop:quick"},
        modules={"shop": SHOP},
        sections={"nats.tls": {"ca": "ca.pem"}, "runtime": {"user": getpass.getuser()}},
    )
    other.rename(host.directory / "ca.pem")
    operator = Operator(host, server.url)
    await operator.sees("certificate", "check", "--connect", status=78)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
@own_peers
async def test_a_file_system_that_is_full(tmp_path: Path, new_host: NewHost) -> None:
    small = tmp_path / "small"
    small.mkdir()
    sections = {"runtime": {"directory": small, "user": getpass.getuser()}}
    host = new_host(
        nats="nats://127.0.0.1:4222",
        handlers={"sms:send": "shop:quick"},
        modules={"shop": SHOP},
        sections=sections,
    )
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=755", "tmpfs", small], check=True)
    try:
        await Operator(host, "nats://127.0.0.1:4222", {str(small): "/run/ajhost"}).sees("disk-full", "check", status=78)
    finally:
        subprocess.run(["umount", small], check=True)
        await host.destroy()


async def test_every_situation_of_the_page_is_made() -> None:
    made = set(re.findall(r'sees\(\s*"([a-z-]+)"', Path(__file__).read_text()))
    assert sorted(made) == sorted(runbook.situations())
    assert len(made) >= 20


@own_peers
async def test_workers_that_die_at_each_start(start_server: StartServer, new_host: NewHost) -> None:
    server = await start_server()
    host = new_host(
        handlers={"sms:send": "shop:quick"},
        modules={"shop": "import os\ndef lifespan(worker):\n    os._exit(9)\n" + SHOP},
        sections={"python": {"lifespan": "shop:lifespan"}},
    )
    await host.launch()
    await host.log("died")
    await Operator(host, server.url).sees("crash-loop", "status", status=1)
