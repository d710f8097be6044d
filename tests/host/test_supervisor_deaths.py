"""The daemon's own death: no process stays behind, and the next start answers or runs what was left."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from ajhost.ledger.layout import State
from tests.support.factories import Enter, NewHost, StartHost, StartRouter
from tests.support.host import Host
from tests.support.nats import NatsServer
from tests.support.router import Router, Verdict
from tests.support.waiting import until

HANDLERS = {"echo": "echo", "work": "work", "stuck": "stuck_thread", "gil": "hold_gil"}
SMALL = {"workers": {"count": 2, "concurrency": 2}}


async def test_workers_of_a_dead_supervisor_finish_and_leave(start_host: StartHost, router: Router) -> None:
    host = await start_host(handlers=HANDLERS, sections=SMALL)
    requests = [await router.send("work", {"sleep_ms": 500}) for _ in range(10)]
    await router.barrier()
    host.send_signal(signal.SIGKILL)
    await host.wait()
    replies = [await router.reply(r) for r in requests]
    assert {r.verdict for r in replies} == {Verdict.COMPLETE}
    await host.nothing_left()


async def test_a_worker_that_is_stopped_when_its_supervisor_dies_goes_on_and_leaves(
    start_host: StartHost,
) -> None:
    host = await start_host(handlers=HANDLERS, sections=SMALL)
    host.kill(0, signal.SIGSTOP)
    host.send_signal(signal.SIGKILL)
    await host.wait()
    await host.nothing_left()


async def test_the_next_start_keeps_the_deadlines_of_an_orphan_that_hangs(
    start_host: StartHost, router: Router
) -> None:
    host = await start_host(handlers=HANDLERS, sections=SMALL)
    hanging = await router.send("gil", {"block_ms": 8000}, deadline=4)
    await host.running(1)
    host.send_signal(signal.SIGKILL)
    await host.wait()
    await host.restart()
    reply = await router.reply(hanging)
    assert (reply.verdict, reply.word) == (Verdict.ERROR, "deadline exceeded:")
    assert not hanging.is_late


async def test_after_kill_9_of_every_process_the_next_start_answers_and_runs_what_was_left(
    tmp_path: Path, start_host: StartHost, router: Router
) -> None:
    record = tmp_path / "runs"
    host = await start_host(handlers=HANDLERS, sections=SMALL)
    running = [await router.send("work", {"sleep_ms": 60_000, "record": str(record)}, deadline=30) for _ in range(4)]
    await host.running(4)
    await until(lambda: record.exists() and len(record.read_text().split()) == 8)
    waiting = [await router.send("work", {"sleep_ms": 10}, deadline=30) for _ in range(20)]
    await router.barrier()
    await _settled(host, 20)
    host.signal_all()
    await host.wait()
    await host.nothing_left()
    await host.restart()
    for request in running:
        reply = await router.reply(request)
        assert (reply.verdict, reply.word) == (Verdict.ERROR, "worker died:")
        assert reply.wall < request.deadline
    for request in waiting:
        reply = await router.reply(request)
        assert reply.verdict is Verdict.COMPLETE, reply
    assert os.listdir(host.runtime / "ledger")  # of the living
    assert len(os.listdir(host.runtime / "ledger")) == 3


@pytest.mark.parametrize("connected", [False, True])
async def test_the_next_start_repeats_its_answers_to_routers_that_are_not_back_after_the_server(
    nats_server: NatsServer, start_host: StartHost, start_router: StartRouter, connected: bool
) -> None:
    """Server and host are killed; the host had, or had not, connected again to the server that came after."""
    sections = {"workers": {"count": 1, "concurrency": 1}}
    host = await start_host(handlers=HANDLERS, sections=sections)
    router = await start_router(reconnect_time_wait=4)
    requests = [await router.send("work", {"sleep_ms": 300}, deadline=20) for _ in range(5)]
    await router.barrier()
    await host.running(1)
    await nats_server.kill()
    if connected:
        await nats_server.start()
        await host.log("worker 0: connected again to NATS")
        await host.log("supervisor: connected again to NATS")
    host.signal_all()
    await host.wait()
    await host.nothing_left()
    if not connected:
        await nats_server.start()
    await host.restart()
    replies = [await router.reply(r) for r in requests]
    assert {r.verdict for r in replies} <= {Verdict.COMPLETE, Verdict.ERROR}
    assert Verdict.COMPLETE in {r.verdict for r in replies[1:]}
    assert {r.word for r in replies if r.verdict is Verdict.ERROR} <= {"worker died:"}
    assert min(r.latency for r in requests) > 3  # it was away when they were made


async def test_what_a_dead_supervisor_held_as_the_last_subscriber_runs_after_the_next_start(
    start_host: StartHost, router: Router
) -> None:
    """Killed alone, without a service manager: its template ends with it, and its ledger has the requests."""
    one = {"workers": {"count": 1, "concurrency": 2}}
    host = await start_host(handlers=HANDLERS, sections=one)
    os.kill(host.template(), signal.SIGSTOP)  # so that nobody replaces the worker
    started = [await router.send("work", {"sleep_ms": 60_000}, deadline=30) for _ in range(2)]
    await until(lambda: host.in_ledgers(State.STARTED) == 2)
    host.kill(0)
    assert {(await router.reply(request)).word for request in started} == {"worker died:"}
    held = [await router.send("work", {}, deadline=30) for _ in range(20)]
    await until(lambda: host.in_ledgers(State.RECEIVED, State.QUEUED) == 20)
    host.send_signal(signal.SIGKILL)
    await host.wait()
    await host.nothing_left()
    await host.restart()
    assert {(await router.reply(request)).verdict for request in held} == {Verdict.COMPLETE}
    await until(lambda: len(os.listdir(host.runtime / "ledger")) == 2)  # the living ones'


async def test_a_foreign_file_is_put_aside(new_host: NewHost, enter: Enter, router: Router) -> None:
    host = new_host(handlers=HANDLERS)
    (host.runtime / "ledger").mkdir()
    (host.runtime / "ledger" / "17.ledger").write_bytes(b"not a ledger at all" * 1000)
    (host.runtime / "ledger" / "18.ledger").write_bytes(b"")
    (host.runtime / "ledger" / "19.ledger").symlink_to("/etc/passwd")
    (host.runtime / "ledger" / "20.ledger").mkdir()
    os.mkfifo(host.runtime / "ledger" / "21.ledger")
    (host.runtime / "ledger" / "²².ledger").write_bytes(b"")
    (host.runtime / "ledger" / "23.ledger").write_bytes(b"somebody's" * 1000)
    if os.geteuid() == 0:
        os.chown(host.runtime / "ledger" / "23.ledger", 12345, 12345)
    await enter(host)
    for serial in (17, 18, 23):
        await host.log(f"{serial}.foreign")
    # nothing of it kept the start from looking after what earlier ones left
    assert not host.output.having("is done again"), host.log_text()
    assert (await router.request("echo", b"x")).body == b"x"


async def _settled(host: Host, waiting: int) -> None:
    """Until the two workers have enqueued what they cannot start."""
    while True:
        status = await host.status()
        if sum(w["counts"]["lent"] for w in status["workers"]) >= waiting:
            return


async def test_a_worker_that_wakes_without_a_supervisor_and_a_connection_serves_no_more(
    start_host: StartHost, router: Router
) -> None:
    sections = {"workers": {"count": 1, "concurrency": 2, "kill_grace": 3.0}}
    host = await start_host(handlers=HANDLERS, sections=sections)
    hanging, pid = await router.send("gil", {"block_ms": 3000}, deadline=6), host.workers()[0]
    await host.log("moved while it hangs")  # with its connection
    host.send_signal(signal.SIGKILL)
    await host.wait()
    await host.log("the supervisor is gone")
    replies = []
    while host.all_processes():
        replies.append(await router.request("work"))
    assert replies
    # the worker that replaces it may have joined the group before the supervisor was killed
    assert pid not in {reply.json()["pid"] for reply in replies if reply.verdict is not Verdict.NO_RESPONDERS}
    assert (await router.reply(hanging)).verdict is Verdict.COMPLETE
