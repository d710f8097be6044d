"""Benches, templates, workers and virtual environments, ended with their test."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from ajhost.adapters.linux import processes
from ajhost.adapters.linux.channel import Channel, pair
from ajhost.roles.messages import GenerationSpec, WorkerSpec
from ajhost.roles.shared_queue.token_queues import TokenQueue, open_queue
from ajhost.roles.supervisor.template_process import TemplateProcess
from tests.roles.template.driver import ENTRY, TIMEOUT, WORKER, Fork, Start, TemplateDriver, Worker


@pytest.fixture(autouse=True)
def _subreaper() -> None:
    """As the supervisor is: it lasts for the process, and hurts nobody."""
    processes.become_subreaper()


@pytest.fixture
def queues() -> Iterator[list[TokenQueue]]:
    opened = [open_queue(""), open_queue("email:new")]
    yield opened
    for queue in opened:
        queue.close()


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TemplateDriver:
    app, entry = tmp_path / "app", tmp_path / "entry"
    app.mkdir()
    entry.mkdir()
    (entry / "worker_of_the_test.py").write_text(WORKER)
    monkeypatch.setenv("PYTHONPATH", str(entry))
    made = TemplateDriver(app)
    made.module("acme", "async def send(task): ...\ndef sync(task): return 42\n")
    return made


@pytest.fixture
async def start(queues: list[TokenQueue]) -> AsyncIterator[Start]:
    started: list[TemplateProcess] = []

    async def make(spec: GenerationSpec) -> TemplateProcess:
        template = await TemplateProcess.start(spec, queues, TIMEOUT, entry=ENTRY)
        started.append(template)
        return template

    yield make
    for template in started:
        await template.end()


@pytest.fixture
async def fork(queues: list[TokenQueue]) -> AsyncIterator[Fork]:
    forked: list[Worker] = []

    async def make(template: TemplateProcess, slot: int = 0, more_queues: tuple[TokenQueue, ...] = ()) -> Worker:
        ours, theirs = pair()
        with theirs:
            try:
                worker_spec = WorkerSpec(slot, 100 + len(forked), 5, 99)
                spawned = await template.spawn(worker_spec, theirs, [*queues, *more_queues])
            except BaseException:
                ours.close()
                raise
        forked.append(Worker(spawned, Channel(ours)))
        return forked[-1]

    yield make
    for worker in forked:
        await worker.destroy()


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """A virtual environment without ajhost and its dependencies, with a package of its own."""
    directory = tmp_path / "venv"
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", str(directory)],
        check=True,
        timeout=60,
        env={"PATH": "/bin"},
    )
    (site,) = directory.glob("lib/python3.*/site-packages")
    (site / "only_here.py").write_text("def send(task): return 'the venv'\n")
    (site / "pydantic.py").write_text("HERE = True\n")
    return directory
