"""What the supervisor keeps of its workers and generations is bounded, however long they crash."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import signal
from pathlib import Path

from ajhost.adapters.fault_guard import FaultGuard
from ajhost.adapters.systemd.notify import Notifier
from ajhost.core.fleet import Scale
from ajhost.roles.shared_queue.token_queues import TokenQueue
from ajhost.roles.supervisor.fd_store import FdStore
from ajhost.roles.supervisor.generations import Generation, Generations
from ajhost.roles.supervisor.worker_pool import WorkerPool
from ajhost.roles.supervisor.worker_process import WorkerProcess
from ajhost.settings.sections import NatsSettings, WorkerSettings
from tests.roles.template.driver import Start, TemplateDriver
from tests.support.waiting import until

_DEATHS = 40
ONE = WorkerSettings(count=1)


class Deaths:
    """A pool whose workers do not live long, and what it told."""

    def __init__(self, directory: Path, queues: list[TokenQueue]) -> None:
        (directory / "ledger").mkdir()
        self.count = 0
        self.templates: list[int] = []
        generations = Generations(directory)
        generations.queues.extend(queues)
        self.pool = WorkerPool(
            generations,
            1,
            FaultGuard(logging.getLogger("test")),
            NatsSettings(),
            FdStore(Notifier()),
            self,
        )
        self.pool.max_payload = 1 << 16

    def worker_died(self, worker: WorkerProcess, how: str) -> None:
        """Counts it."""
        self.count += 1

    def worker_replaced(self, worker: WorkerProcess, why: str) -> None:
        """Nobody waits for that."""

    def template_died(self, generation: int, how: str) -> None:
        """Notes it."""
        self.templates.append(generation)

    def changed(self) -> None:
        """Nobody waits for that."""

    async def next(self) -> None:
        """One more worker is born and killed."""
        pool, before = self.pool, self.count
        number = pool.fleet.generation
        pool.handle(Scale(number, 1))  # which ends the waiting of a crash loop
        await until(lambda: any(m.pid for m in pool.workers.values()))
        for member in list(pool.workers.values()):
            os.kill(member.pid, signal.SIGKILL)
        await until(lambda: self.count > before)

    async def end(self) -> None:
        pool = self.pool
        pool.fleet.stopping = True
        for member in list(pool.workers.values()):
            await until(lambda member=member: member.pid)  # type: ignore[misc]
            member.kill()
        await until(lambda: not pool.workers and not pool.background.tasks)
        await pool.generations.end_templates()


async def test_a_crash_loop_of_days_keeps_only_the_last_reasons(
    driver: TemplateDriver, start: Start, queues: list[TokenQueue], tmp_path: Path
) -> None:
    deaths = Deaths(tmp_path, queues)
    spec = dataclasses.replace(driver.plan(), workers=ONE)
    deaths.pool.generations[spec.generation] = Generation(spec)
    deaths.pool.change_over(spec.generation, await start(spec))
    try:
        for _ in range(_DEATHS):
            await deaths.next()
        assert deaths.count >= _DEATHS
        (generation,) = deaths.pool.generations.values()
        assert 0 < len(generation.failures) <= 8
    finally:
        await deaths.end()


async def test_a_generation_whose_template_died_is_forgotten_with_its_last_worker(
    driver: TemplateDriver, start: Start, queues: list[TokenQueue], tmp_path: Path
) -> None:
    deaths = Deaths(tmp_path, queues)
    pool = deaths.pool
    try:
        for number in range(1, 4):
            spec = dataclasses.replace(driver.plan(), generation=number, workers=ONE)
            pool.generations[number] = Generation(spec)
            template = await start(spec)
            pool.change_over(number, template)
            await until(lambda: any(m.pid for m in pool.workers.values()))
            os.kill(template.pid, signal.SIGKILL)
            await until(lambda number=number: number in deaths.templates)  # type: ignore[misc]
            assert pool.generations.template(number) is None
        await until(lambda: all(m.pid for m in pool.workers.values()))
        for member in list(pool.workers.values()):
            member.kill()
        await until(lambda: set(pool.generations) == {3})
        await asyncio.sleep(0)
    finally:
        await deaths.end()
