"""The services that are measured: the host, and what it is compared with, each started the same way."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from scripts.lib.bench.measurement import cpu_seconds
from tests.support.host import ROOT, Host, Section

HANDLERS = "scripts.lib.bench.handlers"
TYPED_HANDLERS = "scripts.lib.bench.typed_handlers"
COUNTED_HANDLERS = "scripts.lib.bench.counted_handlers"


@dataclass(frozen=True, slots=True)
class Service:
    """Something that answers tasks of the type that bears its name."""

    name: str
    pids: tuple[int, ...]
    """The processes that do it."""

    def cpu(self) -> float:
        """Seconds of CPU that they have used."""
        return sum(map(cpu_seconds, self.pids))


@contextlib.asynccontextmanager
async def peer(module: str, name: str, url: str, env: Mapping[str, str] | None = None) -> AsyncIterator[Service]:
    """One of the peers of this package, as a process, with `env` besides the environment."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", f"scripts.lib.bench.{module}", url, f"CHORIA_AJ.H.T.{name}"),
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": f"{ROOT / 'daemon'}:{os.environ.get('PYTHONPATH', '')}",
            **(env or {}),
        },
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        if await process.stdout.readline() != b"ready\n":
            raise RuntimeError(f"{module} did not start")
        yield Service(name, (process.pid,))
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


def host(
    directory: Path,
    url: str,
    handlers: Mapping[str, str | Section],
    workers: Section,
    env: Mapping[str, str] | None = None,
    **more: Section,
) -> Host:
    """A host with handlers of this package, and `env` besides the environment."""
    targets: dict[str, str | Section] = {}
    for route, handler in handlers.items():
        table = {"target": handler} if isinstance(handler, str) else dict(handler)
        if ":" not in table["target"]:
            table["target"] = f"{HANDLERS}:{table['target']}"
        targets[route] = table
    sections = {"workers": workers, "log": {"level": "error"}, **more}
    return Host(directory, nats=url, handlers=targets, sections=sections, env=env)
