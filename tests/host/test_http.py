"""What a host serves over HTTP: metrics that never go back, status, health and readiness."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.factories import NewHost, StartHost
from tests.support.host import Host, Section, steady
from tests.support.nats import NatsServer, free_port
from tests.support.router import Router, Verdict

HANDLERS: Mapping[str, str] = {"echo": "echo", "work": "work", "terminate": "terminate", "kill": "kill_self"}
CRASHING = {"crashing": "import os\nfrom ajhost import Task\n\nos._exit(3)\n"}


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, content type and text."""

    status: int
    kind: str
    text: str


def _fetch(url: str, method: str) -> Answer:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=10) as response:
            return Answer(response.status, response.headers["content-type"], response.read().decode())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.headers["content-type"], error.read().decode())


async def fetch(listen: str, path: str, method: str = "GET") -> Answer:
    return await asyncio.to_thread(_fetch, f"http://{listen}{path}", method)


async def scrape(listen: str) -> dict[str, float]:
    """Sample with its labels -> value."""
    lines = (await fetch(listen, "/metrics")).text.splitlines()
    return {name: float(value) for name, value in (li.rsplit(" ", 1) for li in lines if li[0] != "#")}


async def scrape_until(listen: str, sample: str, value: float) -> dict[str, float]:
    """The first scrape in which a sample has reached a value."""
    async with asyncio.timeout(20):
        while (samples := await scrape(listen)).get(sample, 0) < value:  # noqa: ASYNC110  # asked from outside
            await asyncio.sleep(0.02)
        return samples


async def answers_until(listen: str, path: str, status: int) -> Answer:
    """The first answer with this status."""
    async with asyncio.timeout(20):
        while (answer := await fetch(listen, path)).status != status:  # noqa: ASYNC110  # asked from outside
            await asyncio.sleep(0.02)
        return answer


@pytest.fixture
def listen() -> str:
    return f"127.0.0.1:{free_port()}"


def sections(listen: str, **workers: object) -> dict[str, Section]:
    return {"http": {"listen": listen}, "workers": workers}


@contextlib.contextmanager
def keep_alive(listen: str) -> Iterator[socket.socket]:
    """A connection that has had an answer and waits for more."""
    host, _, port = listen.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        sock.sendall(b"GET /healthz HTTP/1.1\r\nhost: test\r\n\r\n")
        answer = b""
        while not answer.endswith(b"\r\n\r\nok\n"):
            received = sock.recv(65536)
            assert received, answer
            answer += received
        yield sock


async def test_every_page_of_a_host_that_serves(listen: str, start_host: StartHost) -> None:
    host = await start_host(handlers=HANDLERS, sections=sections(listen))
    assert await fetch(listen, "/healthz") == Answer(200, "text/plain; charset=utf-8", "ok\n")
    assert await fetch(listen, "/readyz") == Answer(200, "text/plain; charset=utf-8", "ready\n")
    metrics = await fetch(listen, "/metrics")
    assert (metrics.status, metrics.kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    status = await fetch(listen, "/status")
    assert (status.status, status.kind) == (200, "application/json")
    assert steady(json.loads(status.text)) == steady(await host.status())
    missing = await fetch(listen, "/metric")
    assert (missing.status, missing.text) == (404, "there is /metrics, /status, /healthz, /readyz, /\n")
    assert (await fetch(listen, "/metrics", "POST")).status == 405
    assert await fetch(listen, "/healthz", "HEAD") == Answer(200, "text/plain; charset=utf-8", "")


async def test_a_host_without_the_section_does_not_listen(host: Host) -> None:
    inodes = {
        link.readlink().name.removeprefix("socket:[").removesuffix("]")
        for link in Path(f"/proc/{host.pid}/fd").iterdir()
        if link.readlink().name.startswith("socket:[")
    }
    text = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    rows = [line.split() for line in text.splitlines()]
    assert [row for row in rows if row[3] == "0A" and row[9] in inodes] == []


async def test_asking_for_the_status_leaves_the_supervisor_s_own_ledger_locked(
    listen: str, start_host: StartHost
) -> None:
    host = await start_host(sections=sections(listen))
    assert (await fetch(listen, "/status")).status == 200
    locks = Path("/proc/locks").read_text().splitlines()
    holders = [line.split()[4] for line in locks if " POSIX " in line]
    assert str(host.pid) in holders


async def test_every_sample_has_help_and_its_labels_are_few(listen: str, start_host: StartHost) -> None:
    await start_host(sections=sections(listen, count=3))
    text = (await fetch(listen, "/metrics")).text
    helped = set(re.findall(r"^# HELP (\S+) \S", text, re.MULTILINE))
    samples_of = re.findall(r"^(ajhost_[a-z_]+)", text, re.MULTILINE)
    names = [re.sub(r"_seconds_(bucket|sum|count)$", "_seconds", name) for name in samples_of]
    assert len(set(names)) >= 18
    assert set(names) <= helped
    labels = {"le", "outcome", "python", "reason", "route", "slot", "state", "version"}
    assert set(re.findall(r'[{,](\w+)="', text)) == labels
    samples = await scrape(listen)
    assert samples['ajhost_workers{state="serving"}'] == samples["ajhost_slots"] == 3
    assert all(samples[f'ajhost_worker_resident_bytes{{slot="{n}"}}'] > 1 << 20 for n in range(3))
    assert abs(samples["process_start_time_seconds"] - time.time()) < 60


async def test_counters_do_not_go_back_when_a_worker_is_replaced(
    listen: str, start_host: StartHost, router: Router
) -> None:
    host = await start_host(handlers=HANDLERS, sections=sections(listen))
    for _ in range(40):
        assert (await router.request("echo", b"x")).verdict is Verdict.COMPLETE
    await router.request("work", {"kind": "error"})
    await router.request("terminate")
    before = await scrape(listen)
    assert before['ajhost_requests_received_total{route="echo"}'] == 40
    assert before['ajhost_tasks_completed_total{route="echo"}'] == 40
    assert before['ajhost_tasks_failed_total{reason="handler error",route="work"}'] == 1
    assert before['ajhost_tasks_terminated_total{route="terminate"}'] == 1
    running = await router.send("work", {"sleep_ms": 60_000})
    await scrape_until(listen, 'ajhost_tasks_running{route="work"}', 1)
    (slot,) = [w["slot"] for w in (await host.status())["workers"] if w["tasks"]]
    lived = await scrape(listen)
    assert lived['ajhost_requests_received_total{route="work"}'] == 2
    await processes.gone(host.kill(slot))
    assert (await router.reply(running)).word == "worker died:"
    after = await scrape_until(listen, 'ajhost_workers{state="serving"}', 2)
    counters = [name for name in lived if re.match(r"ajhost_\w+_(total|bucket|sum|count)", name)]
    assert {name: (lived[name], after[name]) for name in counters if after[name] < lived[name]} == {}
    assert after['ajhost_tasks_completed_total{route="echo"}'] == 40
    assert after['ajhost_tasks_failed_total{reason="worker died",route="work"}'] == 1
    assert after["ajhost_worker_deaths_total"] == 1
    assert after["ajhost_tasks_answered_for_dead_total"] == 1
    assert after['ajhost_tasks_running{route="work"}'] == 0


async def test_the_last_resort_and_what_is_moved_are_counted(
    listen: str, start_host: StartHost, router: Router
) -> None:
    host = await start_host(handlers=HANDLERS, sections=sections(listen, count=1))
    assert (await scrape(listen))["ajhost_last_resort_total"] == 0
    host.kill(0, signal.SIGSTOP)
    unread = await router.send("echo", b"x")
    await scrape_until(listen, "ajhost_last_resort_total", 1)
    assert (await router.reply(unread)).verdict is Verdict.COMPLETE
    assert (await scrape(listen))["ajhost_requests_requeued_total"] == 1


async def test_reloads_are_counted_and_the_section_cannot_change_by_one(listen: str, start_host: StartHost) -> None:
    host = await start_host(handlers=HANDLERS, sections=sections(listen))
    assert (await host.reload()).status == 0
    named = {"http": {"listen": listen, "hosts": ["farm.example"]}}
    other = sections(f"127.0.0.1:{free_port()}")
    for key, changed in (("listen", {}), ("listen", other), ("hosts", named)):
        host.configure(HANDLERS, changed)
        result = await host.reload()
        assert result.status == 1
        assert f"http.{key}: cannot change while running; restart instead" in str(result)
    samples = await scrape(listen)
    assert samples['ajhost_reloads_total{outcome="taken"}'] == 1
    assert samples['ajhost_reloads_total{outcome="rejected"}'] == 3
    assert samples["ajhost_generation"] == 2


async def test_a_slot_that_crashes_again_and_again_is_named_by_readyz(
    listen: str, start_host: StartHost, router: Router
) -> None:
    host = await start_host(handlers=HANDLERS, sections=sections(listen, count=1))
    for number in range(1, 4):  # each within a second of service: the next try waits longer
        await router.request("kill")
        await scrape_until(listen, "ajhost_worker_deaths_total", number)
        if number < 3:
            await answers_until(listen, "/readyz", 200)
    answer = await answers_until(listen, "/readyz", 503)
    assert re.fullmatch(r"slot 0 does not serve: (no worker, a next try is due|starting)\n", answer.text)
    assert (await fetch(listen, "/healthz")).status == 200
    await answers_until(listen, "/readyz", 200)
    assert host.workers().keys() == {0}


async def test_a_host_that_waits_for_nats_is_healthy_and_not_ready(listen: str, new_host: NewHost) -> None:
    server = f"127.0.0.1:{free_port()}"
    host = new_host(nats=f"nats://{server}", sections=sections(listen))
    await host.launch()
    await host.log("starting 2 workers")
    assert (await fetch(listen, "/healthz")).status == 200
    async with asyncio.timeout(20):
        while not (answer := await fetch(listen, "/readyz")).text.endswith("refused\n"):
            assert answer.status == 503
    assert answer.text == f"the host is starting; NATS: {server}: connection refused\n"
    attempts = await host.command("attempts")  # none was ever made, and a host runs
    assert (attempts.status, attempts.stdout) == (0, "")
    assert (await scrape(listen))["ajhost_slots"] == 0
    assert await host.terminate() == 0


async def test_a_port_in_use_is_told_and_the_host_does_not_start(nats_server: NatsServer, new_host: NewHost) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        listen = f"127.0.0.1:{other.getsockname()[1]}"
        host = new_host(sections=sections(listen))
        try:
            assert await host.run_to_end() == 70
            assert f"cannot start: http.listen: {listen}: Address already in use" in host.log_text()
            assert "Traceback" not in host.log_text()
        finally:
            await host.destroy()


async def test_a_name_that_cannot_be_resolved_is_told(nats_server: NatsServer, new_host: NewHost) -> None:
    host = new_host(sections=sections("nowhere.invalid:9464"))
    assert await host.run_to_end() == 70
    assert re.search(r"cannot start: http\.listen: nowhere\.invalid:9464: \w+", host.log_text())


async def test_open_connections_do_not_delay_a_stop(listen: str, start_host: StartHost) -> None:
    host = await start_host(sections=sections(listen))
    with keep_alive(listen) as idle, keep_alive(listen) as half:
        half.sendall(b"GET /metrics HTTP/1.1\r\nhost: te")
        began = time.monotonic()
        assert await host.terminate() == 0
        assert time.monotonic() - began < 10  # a connection may be idle for 15 s
        assert idle.recv(1) == b""
    assert "Traceback" not in host.log_text()


async def test_one_connection_more_than_some_closes_the_one_that_waited_longest(
    listen: str, start_host: StartHost
) -> None:
    await start_host(sections=sections(listen))
    host, _, port = listen.rpartition(":")
    with contextlib.ExitStack() as opened:
        waiting = [opened.enter_context(keep_alive(listen)) for _ in range(32)]
        opened.enter_context(socket.create_connection((host, int(port)), timeout=10))
        with contextlib.suppress(ConnectionResetError):  # the one that has waited longest makes room
            assert await asyncio.to_thread(waiting[0].recv, 1) == b""
    assert (await answers_until(listen, "/healthz", 200)).text == "ok\n"


async def test_a_request_whose_body_is_no_http_is_refused_without_a_word_in_the_log(
    listen: str, start_host: StartHost
) -> None:
    host = await start_host(sections=sections(listen))
    address, _, port = listen.rpartition(":")
    for head in ("GET /readyz", "GET /nothing", "POST /metrics"):
        reader, writer = await asyncio.open_connection(address, int(port))
        writer.write(f"{head} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".encode())
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        writer.close()
    assert (await fetch(listen, "/healthz")).text == "ok\n"
    assert not host.output.having("Traceback")


async def test_status_and_metrics_say_the_same_of_a_worker_that_hangs_and_goes_on(
    listen: str, start_host: StartHost, router: Router
) -> None:
    """There is one word for it, which the supervisor writes and both read."""

    async def states() -> list[str]:
        status = json.loads((await fetch(listen, "/status")).text)
        return [worker["state"] for worker in status["workers"]]

    seen: list[bool] = []
    await start_host(handlers={"block": "block_loop"}, sections=sections(listen, count=2))
    hanging = await router.send("block", {"block_ms": 1200}, deadline=30)
    while True not in seen or seen[-1]:
        before, samples, after = await states(), await scrape(listen), await states()
        if before == after:
            for state in ("serving", "hung"):
                assert samples[f'ajhost_workers{{state="{state}"}}'] == before.count(state), before
            seen.append("hung" in before)
    assert (await router.reply(hanging)).verdict is Verdict.COMPLETE
