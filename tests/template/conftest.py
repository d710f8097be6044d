"""Benches, templates, workers and virtual environments, ended with their test."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from ajhost.adapters import processes
from ajhost.adapters.channel import Channel, pair
from ajhost.roles.plan import GenerationPlan, WorkerOrder
from ajhost.roles.shared_queue.lane import Lane, open_lane
from ajhost.roles.template.client import Template
from tests.template.bench import ENTRY, TIMEOUT, WORKER, Bench, Fork, Start, Worker


@pytest.fixture(autouse=True)
def _subreaper() -> None:
    """As the supervisor is: it lasts for the process, and hurts nobody."""
    processes.become_subreaper()


@pytest.fixture
def lanes() -> Iterator[list[Lane]]:
    opened = [open_lane(""), open_lane("email:new")]
    yield opened
    for lane in opened:
        lane.close()


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    app, entry = tmp_path / "app", tmp_path / "entry"
    app.mkdir()
    entry.mkdir()
    (entry / "worker_of_the_test.py").write_text(WORKER)
    monkeypatch.setenv("PYTHONPATH", str(entry))
    made = Bench(app)
    made.module("acme", "async def send(task): ...\ndef sync(task): return 42\n")
    return made


@pytest.fixture
async def start(lanes: list[Lane]) -> AsyncIterator[Start]:
    started: list[Template] = []

    async def make(plan: GenerationPlan) -> Template:
        template = await Template.start(plan, lanes, TIMEOUT, entry=ENTRY)
        started.append(template)
        return template

    yield make
    for template in started:
        template.close()
        await template.wait_closed()


@pytest.fixture
async def fork(lanes: list[Lane]) -> AsyncIterator[Fork]:
    forked: list[Worker] = []

    async def make(template: Template, slot: int = 0, more_lanes: tuple[Lane, ...] = ()) -> Worker:
        ours, theirs = pair()
        with theirs:
            try:
                order = WorkerOrder(slot, 100 + len(forked), 5, 99)
                spawned = await template.spawn(order, theirs, [*lanes, *more_lanes])
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
