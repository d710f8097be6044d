"""Workers that a template forked: real forks, real deaths."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from ajhost.roles.handlers import HandlerDescription
from ajhost.roles.shared_queue.token_queues import TokenQueue, open_queue
from tests.roles.template.driver import Fork, Start, TemplateDriver
from tests.support.processes import children, info
from tests.support.waiting import until


async def test_a_worker_is_a_child_of_the_supervisor_with_a_session_and_a_title_of_its_own(
    driver: TemplateDriver, start: Start, fork: Fork
) -> None:
    template = await start(driver.plan("acme:send", "acme:sync"))
    worker = await fork(template, 3)
    report = await worker.report()
    assert (report["slot"], report["serial"], report["generation"]) == (3, 100, 5)
    assert report["pid"] == report["session"] == worker.pid
    assert report["handlers"] == {"r0": ["acme:send", True], "r1": ["acme:sync", False]}
    assert report["called"] == [42]
    assert report["blocked"] >= 60
    assert report["signals"]["SIGTERM"] == "<Handlers.SIG_DFL: 0>"
    assert "default_int_handler" in report["signals"]["SIGINT"]
    process = info(worker.pid)
    assert process is not None
    assert process.title == "ajhost: worker 3"
    # once the process between it and the template has ended
    await until(lambda: worker.pid in {child.pid for child in children(os.getpid())})


async def test_a_worker_holds_its_channel_the_lanes_and_nothing_else(
    driver: TemplateDriver, start: Start, fork: Fork, queues: list[TokenQueue]
) -> None:
    template = await start(driver.plan())
    await fork(template, 0)
    added = open_queue("late")
    try:
        report = await (await fork(template, 1, (added,))).report()
        want = [(queue.name, _inode(queue.receive.fileno()), _inode(queue.send.fileno())) for queue in (*queues, added)]
    finally:
        added.close()
    links = {int(fd): link for fd, link in report["descriptors"].items()}
    assert [(name, links[a], links[b]) for name, a, b in report["queues"]] == want
    expected = {0, 1, 2, report["channel"]} | {fd for _, *pairs in report["queues"] for fd in pairs}
    # adapters/linux/standard_streams.py
    copies = {fd for fd in set(links) - expected if links[fd] == links[2]}
    assert len(copies) == 1
    assert set(links) == expected | copies


def _inode(descriptor: int) -> str:
    return os.readlink(f"/proc/self/fd/{descriptor}")


async def test_more_lanes_than_one_message_holds_all_arrive(driver: TemplateDriver, start: Start, fork: Fork) -> None:
    template = await start(driver.plan())
    many = tuple(open_queue(f"route{number}") for number in range(150))
    try:
        report = await (await fork(template, 0, many)).report()
        assert len(report["queues"]) == 152
    finally:
        for queue in many:
            queue.close()


@pytest.mark.parametrize(
    ("told", "text"),
    [
        ({"return": 0}, "exit status 0"),
        ({"return": 3}, "exit status 3"),
        ({"raise": "SystemExit", "with": 4}, "exit status 4"),
        ({"raise": "SystemExit", "with": None}, "exit status 0"),
        ({"raise": "SystemExit", "with": "why"}, "exit status 1"),
        ({"raise": "ValueError", "with": "x"}, "exit status 1"),
        ({"segfault": True}, "SIGSEGV"),
    ],
)
async def test_the_supervisor_learns_how_a_worker_ended(
    driver: TemplateDriver, start: Start, fork: Fork, told: dict[str, object], text: str
) -> None:
    worker = await fork(await start(driver.plan()))
    worker.tell(**told)
    assert (await worker.ended()).text.removesuffix(" (core dumped)") == text


async def test_the_supervisor_learns_that_a_worker_was_killed_at_once_after_its_fork(
    driver: TemplateDriver, start: Start, fork: Fork
) -> None:
    template = await start(driver.plan())
    for slot in range(20):
        worker = await fork(template, slot)
        os.kill(worker.pid, signal.SIGKILL)
        assert (await worker.ended()).text == "SIGKILL"


async def test_workers_that_are_asked_for_at_the_same_time_all_come(
    driver: TemplateDriver, start: Start, fork: Fork
) -> None:
    template = await start(driver.plan())
    workers = await asyncio.gather(*(fork(template, slot) for slot in range(8)))
    reports = [await worker.report() for worker in workers]
    assert [report["slot"] for report in reports] == list(range(8))
    assert len({report["pid"] for report in reports}) == 8


async def test_each_worker_has_random_numbers_of_its_own(driver: TemplateDriver, start: Start, fork: Fork) -> None:
    driver.module("numpy/__init__", "")
    driver.module("numpy/random", "told = 0\ndef seed():\n    global told\n    told += 1\n")
    driver.module("acme", "import random, numpy.random\nrandom.seed(1)\ndef send(task): ...\n")
    template = await start(driver.plan())
    reports = [await (await fork(template, slot)).report() for slot in range(2)]
    assert reports[0]["random"] != reports[1]["random"]
    assert [report["numpy"] for report in reports] == [1, 1]


async def test_each_worker_has_generators_of_its_own_but_for_those_with_a_seed(
    driver: TemplateDriver, start: Start, fork: Fork
) -> None:
    driver.module(
        "acme",
        """
        import random, numpy
        OWN = random.Random(), numpy.random.default_rng(), numpy.random.Generator(numpy.random.MT19937())
        OLD = numpy.random.RandomState()
        SEEDED = random.Random(1), numpy.random.default_rng(1)
        def send(task): return [[r.random() for r in OWN] + [OLD.rand()], [r.random() for r in SEEDED]]
        """,
    )
    template = await start(driver.plan())
    (first, seeded), (second, also) = [(await (await fork(template, slot)).report())["called"][0] for slot in range(2)]
    assert not set(first) & set(second)
    assert seeded == also


async def test_children_left_over_by_an_import_do_not_disturb_forks(
    driver: TemplateDriver, start: Start, fork: Fork
) -> None:
    driver.module(
        "acme",
        """
        import signal
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        def send(task): ...
        """,
    )
    template = await start(driver.plan())
    os.kill(template.pid, signal.SIGTERM)
    worker = await fork(template)
    worker.tell(**{"return": 3})
    assert (await worker.ended()).text == "exit status 3"


async def test_without_preload_each_worker_imports_by_itself(driver: TemplateDriver, start: Start, fork: Fork) -> None:
    driver.module("acme", "import os\nPID = os.getpid()\ndef send(task): return PID\n")
    template = await start(driver.plan(preload=False))
    assert template.handlers == (HandlerDescription("r0", "acme:send", "thread"),)
    for slot in range(2):
        report = await (await fork(template, slot)).report()
        assert report["called"] == [report["pid"]]


async def test_without_preload_a_broken_module_is_found_before_there_is_a_worker(
    driver: TemplateDriver,
) -> None:
    driver.module("acme", "1 / 0\n")
    (problem,) = await driver.problems(driver.plan(preload=False))
    assert "ZeroDivisionError" in problem


async def test_without_preload_a_module_that_broke_since_ends_its_worker_alone(
    driver: TemplateDriver, start: Start, fork: Fork, capfd: pytest.CaptureFixture[str]
) -> None:
    template = await start(driver.plan(preload=False))
    driver.module("acme", "def other(task): ...\n")
    worker = await fork(template)
    assert (await worker.ended()).text == "exit status 1"
    assert "has no 'send'" in capfd.readouterr().err
