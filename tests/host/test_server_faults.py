"""NATS itself fails: restarts, kill -9, partitions, limits. Requests are answered or refused; the host comes back."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import NoReturn

import pytest

from ajhost.adapters.linux.proc import resident_bytes
from tests.support.factories import Enter, NewHost, StartHost, StartRouter, StartServer
from tests.support.nats import NatsServer
from tests.support.proxy import Partition
from tests.support.router import Report, Request, Router, Verdict, subject_of

HANDLERS = {"echo": "echo", "work": "work"}


async def test_replies_made_while_disconnected_arrive(
    nats_server: NatsServer, start_host: StartHost, router: Router
) -> None:
    await start_host(handlers=HANDLERS)
    requests = [await router.send("work", {"sleep_ms": 1000}, deadline=20) for _ in range(20)]
    await router.barrier()
    assert (await router.request("echo", b"x")).body == b"x"  # all are handed over
    await nats_server.kill()
    await asyncio.sleep(1.5)  # the time that the handlers need, and then some, without a server
    await nats_server.start()
    replies = [await router.reply(r) for r in requests]
    assert {r.verdict for r in replies} == {Verdict.COMPLETE}


async def test_a_router_that_is_back_long_after_us_gets_its_replies(
    nats_server: NatsServer, start_host: StartHost, start_router: StartRouter
) -> None:
    await start_host(handlers=HANDLERS)
    router = await start_router(reconnect_time_wait=4)
    requests = [await router.send("work", {"sleep_ms": 700}, deadline=20) for _ in range(20)]
    await router.barrier()
    assert (await router.request("echo", b"x")).body == b"x"  # all are handed over
    await nats_server.kill()
    await nats_server.start()
    replies = [await router.reply(r) for r in requests]
    assert {r.verdict for r in replies} == {Verdict.COMPLETE}
    assert min(r.latency for r in requests) > 3  # it was away when they were made


async def test_a_worker_killed_before_routers_are_back_is_answered_for(
    nats_server: NatsServer, start_host: StartHost, start_router: StartRouter
) -> None:
    sections = {"workers": {"count": 1}}
    host = await start_host(handlers=HANDLERS, sections=sections)
    router = await start_router(reconnect_time_wait=4)
    requests = [await router.send("work", {"sleep_ms": 700}, deadline=20) for _ in range(10)]
    await router.barrier()
    assert (await router.request("echo", b"x")).body == b"x"  # all are handed over
    pid = host.workers()[0]
    await nats_server.kill()
    await asyncio.sleep(1)  # they are answered meanwhile, to nobody
    await nats_server.start()
    await host.log("worker 0: connected again to NATS")
    await asyncio.sleep(0.5)  # the server has the replies, and no router to give them to
    os.kill(pid, signal.SIGKILL)
    await router.settled(requests)
    assert Report(tuple(requests)).words.keys() == {"worker died:"}


async def test_a_worker_born_before_routers_are_back_gets_its_replies_to_them(
    nats_server: NatsServer, start_host: StartHost, start_router: StartRouter
) -> None:
    """It never saw another server than this one; what it starts came through the one before."""
    sections = {"workers": {"count": 1, "concurrency": 1}}
    host = await start_host(handlers=HANDLERS, sections=sections)
    router = await start_router(reconnect_time_wait=4)
    requests = [await router.send("work", {"sleep_ms": 500}, deadline=20) for _ in range(5)]
    await router.barrier()
    await host.running(1)
    await nats_server.kill()
    await nats_server.start()
    await host.log("worker 0: connected again to NATS")
    await host.log("supervisor: connected again to NATS")
    host.kill(0)
    replies = [await router.reply(r) for r in requests]
    words = [r.word if r.verdict is Verdict.ERROR else r.verdict for r in replies]
    assert words == ["worker died:", *[Verdict.COMPLETE] * 4]
    assert min(r.latency for r in requests) > 3  # it was away when they were made


async def test_the_host_is_back_by_itself_after_restarts_and_kills(
    nats_server: NatsServer, start_host: StartHost, router: Router
) -> None:
    host = await start_host(handlers=HANDLERS)
    before = host.workers()
    for how in ("restart", "kill"):
        if how == "kill":
            await nats_server.kill()
            await nats_server.start()
        else:
            await nats_server.restart()
        await router.barrier()
        await _served(router)
    assert host.workers() == before


async def test_a_worker_killed_while_the_server_is_down_is_answered_for_when_it_is_back(
    nats_server: NatsServer, start_host: StartHost, router: Router
) -> None:
    host = await start_host(handlers=HANDLERS)
    requests = [await router.send("work", {"sleep_ms": 60_000}, deadline=40) for _ in range(8)]
    await host.running(8)
    await nats_server.kill()
    for slot in host.workers():
        host.kill(slot)
    await host.log("died: SIGKILL")
    await asyncio.sleep(0.3)
    await nats_server.start()
    replies = [await router.reply(r) for r in requests]
    assert {(r.verdict, r.word) for r in replies} == {(Verdict.ERROR, "worker died:")}
    await router.barrier()
    await _served(router)


async def test_a_partition_delays_answers_and_loses_none(
    nats_server: NatsServer, start_host: StartHost, enter: Enter, router: Router
) -> None:
    partition = await enter(Partition(nats_server.port))
    await start_host(nats=partition.url, handlers=HANDLERS)
    requests = [await router.send("work", {"sleep_ms": 300}, deadline=30) for _ in range(30)]
    await router.barrier()
    partition.stall()
    await asyncio.sleep(1.0)
    partition.heal()
    replies = [await router.reply(r) for r in requests]
    assert {r.verdict for r in replies} == {Verdict.COMPLETE}


@pytest.mark.parametrize("fault", ["a worker hangs", "both hang", "both are killed", "both are told to go"])
async def test_what_a_partition_holds_back_for_workers_that_do_not_take_it_runs_when_it_is_over(
    nats_server: NatsServer, tmp_path: Path, start_host: StartHost, enter: Enter, router: Router, fault: str
) -> None:
    record = tmp_path / "runs"
    handlers = {**HANDLERS, "block": "block_loop"}
    partition = await enter(Partition(nats_server.port))
    host = await start_host(nats=partition.url, handlers=handlers)
    assert len(host.workers()) == 2
    hanging: list[Request] = []
    while (busy := len(hanging)) < {"a worker hangs": 1, "both hang": 2}.get(fault, 0):
        hanging.append(await router.send("block", {"block_ms": 4000}, deadline=25))
        await host.running(busy + 1)
    partition.stall()
    requests = [await router.send("work", {"sleep_ms": 5, "record": str(record)}, deadline=25) for _ in range(40)]
    await router.barrier()
    match fault:
        case "both are killed":
            for slot in host.workers():
                host.kill(slot)
            await host.log("died: SIGKILL")
        case "both are told to go":
            host.send_signal(signal.SIGHUP)
        case _:
            await host.log("requests moved while it hangs")
    await asyncio.sleep(1.5)  # longer than anybody waits for a server who is waited for
    partition.heal()
    replies = await asyncio.gather(*map(router.reply, (*requests, *hanging)))
    assert {reply.verdict for reply in replies} == {Verdict.COMPLETE}
    runs = record.read_text().split()[::2]
    assert len(runs) == len(set(runs)) == len(requests)
    await _served(router)


async def test_a_server_that_stands_still_for_longer_than_anybody_waits_is_served_when_it_goes_on(
    nats_server: NatsServer, start_host: StartHost, router: Router
) -> None:
    host = await start_host(handlers=HANDLERS)
    await nats_server.stand_still()
    for slot in host.workers():  # the next ones wait for it, and so does the last subscriber
        host.kill(slot)
    await asyncio.sleep(6.5)
    nats_server.send_signal(signal.SIGCONT)
    await host.log("serves, generation 1", since=len(host.output.having("")) - 1)
    async with router.load("work", {"sleep_ms": 2}, rate=200) as load:
        for slot in host.workers():
            await load.sent(40)
            host.kill(slot)
        await load.sent(40)
    report = load.report()
    assert set(report.words) <= {"worker died:"}, report
    assert not report.silent, report
    assert not report.no_responders, report


async def test_a_server_that_stood_still_while_the_last_worker_died_never_finds_nobody_when_it_goes_on(
    nats_server: NatsServer, start_host: StartHost, router: Router
) -> None:
    # whoever gets them all at once, when the server goes on, has room for them
    host = await start_host(handlers=HANDLERS, sections={"workers": {"count": 1, "backlog": 1000}})
    for _ in range(3):
        await nats_server.stand_still()
        host.kill(0)
        requests = [await router.send("echo", b"x", deadline=20) for _ in range(500)]
        # longer than anybody waits who has to: it must learn of the dead one's end after its successor's coming
        await asyncio.sleep(1.5)
        nats_server.send_signal(signal.SIGCONT)
        assert {(await router.reply(r)).verdict for r in requests} == {Verdict.COMPLETE}


async def test_a_host_that_may_not_subscribe_to_all_is_not_ready_until_it_may_and_serves_the_rest(
    start_server: StartServer, new_host: NewHost, start_router: StartRouter
) -> None:
    def config(subjects: str) -> str:
        permissions = f'{{subscribe: [{subjects}], publish: ["_INBOX.>"]}}'
        host = f"{{user: host, password: pw, permissions: {permissions}}}"
        return f"authorization {{ users = [{host}, {{user: router, password: pw}}] }}"

    server = await start_server(config=config('"CHORIA_AJ.H.T.echo"'))
    host = new_host(handlers=HANDLERS, sections={"nats": {"user": "host", "password": "pw"}})
    await host.launch()
    await host.log('grant the host\'s user the permission to subscribe to "CHORIA_AJ.H.T.work"')
    router = await start_router(user="router", password="pw")
    await _served(router)
    assert (await router.request("work", {})).verdict is Verdict.NO_RESPONDERS
    assert "ready:" not in host.log_text()
    await server.kill()
    server.configure(config('"CHORIA_AJ.H.T.>"'))
    await server.start()
    await host.ready(6)


async def test_replies_that_may_not_be_sent_are_told_once_with_the_permission(
    start_server: StartServer, start_host: StartHost, start_router: StartRouter
) -> None:
    user = '{user: host, password: pw, permissions: {subscribe: [">"], publish: ["nothing"]}}'
    config = f"authorization {{ users = [{user}, {{user: router, password: pw}}] }}"
    await start_server(config=config)
    host = await start_host(handlers=HANDLERS, sections={"nats": {"user": "host", "password": "pw"}})
    router = await start_router(user="router", password="pw")
    for _ in range(5):
        await router.send("echo", b"x", deadline=2)
    await host.log('permission to publish to "_INBOX.>"')
    await asyncio.sleep(0.5)
    assert host.log_text().count('permission to publish to "_INBOX.>"') <= len(host.workers())


async def test_a_second_server_takes_over(
    start_server: StartServer, start_host: StartHost, start_router: StartRouter
) -> None:
    one = await start_server()
    two = await start_server()
    await start_host(nats=[one.url, two.url], handlers=HANDLERS)
    router = await start_router(two.url)
    await one.kill()
    await _served(router)


async def test_a_server_in_lame_duck_mode_is_left_without_a_loss(
    start_server: StartServer, start_host: StartHost, start_router: StartRouter
) -> None:
    slow = "lame_duck_duration: 30s\nlame_duck_grace_period: 1s\n"
    server = await start_server(config=slow)
    await start_host(handlers=HANDLERS)
    router = await start_router()
    requests = [await router.send("work", {"sleep_ms": 500}, deadline=30) for _ in range(20)]
    await router.barrier()
    await server.lame_duck()
    replies = [await router.reply(r) for r in requests]
    assert {r.verdict for r in replies} == {Verdict.COMPLETE}


async def test_a_server_that_cuts_a_slow_consumer_costs_only_what_it_had_not_handed_over(
    start_server: StartServer, start_host: StartHost, start_router: StartRouter
) -> None:
    sections = {"workers": {"count": 1, "backlog": 2000}}
    handlers = {**HANDLERS, "block": "block_loop"}
    server = await start_server(config='write_deadline: "100ms"\n')
    host = await start_host(handlers=handlers, sections=sections)
    router = await start_router()
    # stopped, it cannot take the worker out of the group before the server loses patience
    host.send_signal(signal.SIGSTOP)
    hanging = await router.send("block", {"block_ms": 1500}, deadline=20)
    payload = b'{"sleep_ms": 1, "pad": "' + b"x" * 100_000 + b'"}'
    requests = [await router.send("work", payload, deadline=4) for _ in range(300)]
    await server.logged("Slow Consumer")
    host.send_signal(signal.SIGCONT)
    assert (await router.reply(hanging)).verdict is Verdict.COMPLETE
    await router.settled(requests)
    # what the server threw away each time is one piece of the stream
    pieces = [verdict for verdict, _ in itertools.groupby(r.verdict for r in requests)]
    assert pieces[0] is Verdict.COMPLETE, pieces
    assert 1 <= pieces.count(Verdict.SILENT) <= server.log().count("Slow Consumer"), pieces
    assert sum(r.verdict is Verdict.COMPLETE for r in requests) > 20
    await _served(router)


async def test_workers_connect_again_while_the_supervisor_stands_still(
    nats_server: NatsServer, start_host: StartHost, router: Router
) -> None:
    host = await start_host(handlers=HANDLERS)
    assert (await router.request("echo", b"x")).body == b"x"
    host.send_signal(signal.SIGSTOP)
    try:
        await nats_server.kill()
        await nats_server.start()
        await _served(router)
    finally:
        host.send_signal(signal.SIGCONT)
    await _served(router)


async def test_a_burst_past_the_backlog_is_refused_and_bounded(start_host: StartHost, router: Router) -> None:
    sections = {"workers": {"count": 2, "concurrency": 2, "backlog": 8}}
    host = await start_host(handlers=HANDLERS, sections=sections)
    began = time.monotonic()
    requests = [await router.send("work", {"sleep_ms": 50}, deadline=30) for _ in range(5000)]
    await router.settled(requests)
    report = Report(tuple(requests))
    assert report.verdicts.keys() == {Verdict.COMPLETE, Verdict.ERROR}, report
    assert report.words.keys() == {"overloaded:"}, report
    assert report.verdicts[Verdict.COMPLETE] >= 20
    assert time.monotonic() - began < 20
    for pid in host.workers().values():
        assert resident_bytes(pid) < 80 << 20


async def test_large_requests_wait_or_are_refused_and_are_never_lost(
    start_server: StartServer, start_host: StartHost, start_router: StartRouter
) -> None:
    await start_server()
    sections = {"workers": {"count": 2, "concurrency": 1, "backlog": 32}}
    await start_host(handlers={"work": "work", "echo": "echo"}, sections=sections)
    router = await start_router()
    big = b'{"sleep_ms": 50, "pad": "' + b"x" * 700_000 + b'"}'
    requests = [await router.send("work", big, deadline=30) for _ in range(24)]
    replies = [await router.reply(r) for r in requests]
    kinds = {r.word if r.verdict is Verdict.ERROR else r.verdict.value for r in replies}
    assert kinds <= {"complete", "overloaded:"}
    assert sum(r.verdict is Verdict.COMPLETE for r in replies) >= 8


async def test_a_frame_larger_than_any_ledger_is_refused_and_its_body_never_served_though_its_worker_dies(
    start_server: StartServer, start_host: StartHost, start_router: StartRouter
) -> None:
    server = await start_server(config="max_payload: 64KB")
    host = await start_host(handlers=HANDLERS, sections={"workers": {"count": 1}})
    await server.reload("max_payload: 8MB")
    router = await start_router()
    # its body is full of what looks like requests
    inbox = router.client.new_inbox()
    strays = await router.client.subscribe(inbox)
    inner = b"MSG CHORIA_AJ.H.T.echo 1 %s 2\r\n{}\r\n" % inbox.encode()
    body = inner * (7_000_000 // len(inner))
    big = [await router.send_raw(subject_of("echo"), body, None) for _ in range(3)]
    replies = [await router.reply(big[0])]
    host.kill(0)
    replies += [await router.reply(request) for request in big[1:]]
    assert {reply.word for reply in replies} == {"bad request:"}, replies
    await _served(router)
    assert not strays.pending_msgs


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small tmpfs")
async def test_a_runtime_directory_without_room_is_a_clear_error(nats_server: NatsServer, new_host: NewHost) -> None:
    host = new_host(handlers=HANDLERS)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m,mode=755", "tmpfs", host.runtime], check=True)
    try:
        assert await host.run_to_end() == 70
        assert "make that file system larger" in host.log_text()
        assert str(host.runtime) in host.log_text()
        await host.nothing_left()
    finally:
        subprocess.run(["umount", host.runtime], check=True)
        await host.destroy()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small tmpfs")
async def test_a_runtime_directory_that_fills_up_costs_a_reload_and_nothing_else(
    new_host: NewHost, router: Router
) -> None:
    host = new_host(handlers=HANDLERS, sections={"workers": {"count": 2}})
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,mode=755", "tmpfs", host.runtime], check=True)
    try:
        async with host:
            filler = host.runtime / "filler"
            with pytest.raises(OSError, match="No space left"):
                _fill(filler)
            since = len(host.notifications.received)
            rejected = await host.command("reload")
            assert rejected.status == 1, rejected
            assert "make that file system larger" in rejected.stderr
            await host.notifications.next("RELOADING", "1", since=since)
            await host.notifications.next("READY", "1", since=since)  # systemd waits for it after each reload
            before = host.workers()
            for slot in before:
                host.kill(slot)
            assert (await router.request("echo", b"x", deadline=5)).verdict is Verdict.COMPLETE
            filler.unlink()
            for slot in before:
                await host.refilled(slot, before[slot])
            assert (await host.command("reload")).status == 0
            assert (await host.status())["supervisor"]["ready"]
    finally:
        subprocess.run(["umount", host.runtime], check=True)


def _fill(file: Path) -> NoReturn:
    """Takes all the room that is left, and raises OSError then."""
    with file.open("wb", buffering=0) as opened:
        while True:
            opened.write(bytes(4096))


async def _served(router: Router) -> None:
    """The host serves again: no answer may be missing, and at first there may be nobody."""
    end = time.monotonic() + 10
    while (await router.request("echo", b"x", deadline=5)).verdict is not Verdict.COMPLETE:
        assert time.monotonic() < end, "not back within 10 s"
        await asyncio.sleep(0.05)
