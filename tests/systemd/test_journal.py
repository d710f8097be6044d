"""What the journal has of the host, its handlers and their crashes; and what a journal that hangs costs."""

from __future__ import annotations

import asyncio

from tests.support.nats import NatsServer
from tests.support.router import Router, Verdict
from tests.systemd.lab import InstalledHost, Lab

HANDLERS = {
    "speak": "output_handlers:speak",
    "thread": "output_handlers:speak_in_thread",
    "flood": "output_handlers:flood",
    "segfault": "segfault",
    "gil": "hold_gil",
}


async def lost_records(lab: Lab) -> int:
    """How many records the processes of the host say that they lost."""
    return sum(int(record.get("AJ_LOST", 0)) for record in await lab.journal("-u", "ajhost"))


async def test_whatever_a_handler_says_is_there_under_its_workers_name(
    lab: Lab, host: InstalledHost, nats_server: NatsServer, router: Router
) -> None:
    host.configure(nats_server.url, HANDLERS)
    await host.start()
    request = await router.send("speak", b"sesame")
    worker = (await router.reply(request)).json()
    in_thread = await router.send("thread", b"sesame")
    thread_worker = (await router.reply(in_thread)).json()
    records = [r for r in await lab.journal("-u", "ajhost") if "sesame" in r["MESSAGE"]]
    slots = {pid: str(slot) for slot, pid in (await host.workers()).items()}
    by_text = {record["MESSAGE"].split("\n")[0]: record for record in records}
    for text in ("sesame printed", "sesame to stderr", "sesame logged", "sesame failed"):
        record = by_text[text]
        assert record["AJ_TASK"] == request.id
        assert (record["AJ_TYPE"], record["AJ_ROUTE"], record["AJ_TRIES"]) == ("speak", "speak", "1")
        assert 0 < float(record["AJ_DURATION"]) < 10
        assert record["_PID"] == str(worker)
        assert record["AJ_SLOT"] == slots[worker]
        assert record["AJ_GENERATION"] == "1"
        assert record["SYSLOG_IDENTIFIER"] == f"ajhost-worker-{slots[worker]}"
    assert by_text["sesame logged"]["LOGGER"] == "acme.prints"
    assert by_text["sesame logged"]["CODE_FUNC"] == "speak"
    assert by_text["sesame logged"]["CODE_FILE"].endswith("/output_handlers.py")
    assert by_text["sesame logged"]["PRIORITY"] == "4"
    trace = by_text["sesame failed"]["MESSAGE"].split("\n")
    assert trace[1] == "Traceback (most recent call last):"
    assert trace[-1] == "ValueError: sesame"
    assert by_text["sesame in C"]["_PID"] == str(worker)
    assert by_text["sesame by a child"]["_PID"] != str(worker)
    for text in ("sesame printed in a thread", "sesame logged in a thread"):
        assert by_text[text]["AJ_TASK"] == in_thread.id
        assert by_text[text]["_PID"] == str(thread_worker)


async def test_a_crash_leaves_its_stack(lab: Lab, host: InstalledHost, nats_server: NatsServer, router: Router) -> None:
    host.configure(nats_server.url, HANDLERS)
    await host.start()
    reply = await router.request("segfault", {})
    assert (reply.verdict, reply.word) == (Verdict.ERROR, "worker died:")
    fatal = await lab.until_logged("Fatal Python error: Segmentation fault", "-u", "ajhost")
    stack = [r["MESSAGE"] for r in await lab.journal("-u", "ajhost", f"_PID={fatal['_PID']}")]
    assert any("in segfault" in line for line in stack), stack


async def test_the_task_that_killed_a_worker_is_found_by_its_fields(
    lab: Lab, host: InstalledHost, nats_server: NatsServer, router: Router
) -> None:
    host.configure(nats_server.url, HANDLERS)
    await host.start()
    workers = await host.workers()
    request = await router.send("segfault", {})
    assert (await router.reply(request)).word == "worker died:"
    fields = ("AJ_OUTCOME=failed", "AJ_REASON=worker died", f"AJ_TASK={request.id}")
    await lab.until_logged("AJ-Error: worker died: SIGSEGV", "-u", "ajhost", *fields)  # another test's may be there
    (record,) = await lab.journal("-u", "ajhost", *fields)
    assert (record["AJ_TASK"], record["AJ_TYPE"], record["AJ_ROUTE"]) == (request.id, "segfault", "segfault")
    assert (record["AJ_TRIES"], record["PRIORITY"], record["SYSLOG_IDENTIFIER"]) == ("1", "4", "ajhost")
    assert workers[int(record["AJ_WORKER_SLOT"])] == int(record["AJ_WORKER_PID"])
    assert 0 <= float(record["AJ_DURATION"]) < 10


async def test_a_journal_that_hangs_costs_records_and_nothing_else(
    lab: Lab, host: InstalledHost, nats_server: NatsServer, router: Router
) -> None:
    host.configure(nats_server.url, HANDLERS)
    await host.start()
    journald = await lab.pid("systemd-journald.service")
    supervisor = await host.pid()
    await host.kill("STOP", [journald])
    try:
        requests = [await router.send("flood", b"5000", deadline=30) for _ in range(4)]
        spent = [(await router.reply(request)).json() for request in requests]
        await asyncio.sleep(0)
    finally:
        await host.kill("CONT", [journald])
    assert max(spent) < 20, "not even 2 ms for each record"

    async def told() -> bool:
        # four floods of 10,000 records, of which the sockets hold a few hundred
        return await lost_records(lab) > 30_000

    await lab.until(told, "every process tells what was lost")
    assert await host.pid() == supervisor
    assert await lab.show("NRestarts") == "0"
