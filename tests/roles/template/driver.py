"""What the tests of the template share: modules of handlers, and a worker that does what it is told."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import textwrap
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ajhost.adapters.linux import processes
from ajhost.adapters.linux.channel import Channel
from ajhost.adapters.linux.processes import ExitStatus
from ajhost.roles.messages import GenerationSpec
from ajhost.roles.supervisor.template_process import Spawned, TemplateFailed, TemplateProcess
from ajhost.settings.sections import (
    HandlerSettings,
    LogSettings,
    NatsSettings,
    PythonSettings,
    SignatureSettings,
    WorkerSettings,
)

TIMEOUT = 20.0
ENTRY = "worker_of_the_test:run"
WORKER = '''
"""A worker that does what it is told over its channel."""

import ctypes
import os
import random
import signal
import sys

from ajhost.adapters.linux.channel import Channel, ChannelClosed


def run(spec, worker_spec, handlers, channel, queues):
    own = channel.fileno()
    channel = Channel(channel)
    blocked = signal.pthread_sigmask(signal.SIG_SETMASK, set())
    while True:
        try:
            message, _ = channel.receive_wait(None)
        except ChannelClosed:
            return 0
        if "return" in message:
            return message["return"]
        if "raise" in message:
            raise {"SystemExit": SystemExit, "ValueError": ValueError}[message["raise"]](message["with"])
        if "segfault" in message:
            ctypes.string_at(0)
        channel.send({
            "slot": worker_spec.slot, "serial": worker_spec.serial, "generation": worker_spec.generation,
            "pid": os.getpid(), "session": os.getsid(0), "random": random.random(),
            "blocked": len(blocked), "path": sys.path, "python": sys.version_info[:2],
            "handlers": {r: [h.target, h.is_async] for r, h in handlers.items()},
            "called": [h.function(None) for h in handlers.values() if not h.is_async],
            "channel": own, "queues": [[name, a.fileno(), b.fileno()] for name, a, b in queues],
            "descriptors": {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
                            if os.path.lexists(f"/proc/self/fd/{fd}")},
            "signals": {s.name: repr(signal.getsignal(s)) for s in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)},
            "environment": sorted(os.environ), "argv": sys.argv,
            "ajhost": sys.modules["ajhost"].__file__,
            "numpy": getattr(sys.modules.get("numpy.random"), "told", None),
        })
'''


@dataclass
class TemplateDriver:
    """A directory of handler modules, and the plans and templates that tests make with it."""

    app: Path

    def module(self, name: str, source: str) -> None:
        path = self.app / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))

    def plan(
        self,
        target: str = "acme:send",
        *more: str,
        preload: bool = True,
        interpreter: str = sys.executable,
        path: Path | None = None,
    ) -> GenerationSpec:
        return GenerationSpec(
            generation=5,
            runtime=self.app,
            nats=NatsSettings(password="geheim"),
            python=PythonSettings((path or self.app,), Path(interpreter), preload, TIMEOUT),
            workers=WorkerSettings(),
            handlers=tuple(HandlerSettings(f"r{i}", t) for i, t in enumerate((target, *more))),
            signature=SignatureSettings(),
            log=LogSettings(),
        )

    async def problems(self, spec: GenerationSpec, timeout: float = TIMEOUT) -> list[str]:
        """What a template of this plan fails with."""
        with pytest.raises(TemplateFailed) as raised:
            await TemplateProcess.start(spec, (), timeout, entry=ENTRY)
        assert str(raised.value) == "\n".join(raised.value.problems)
        return raised.value.problems


class Worker:
    """A forked worker, from the supervisor's side."""

    def __init__(self, spawned: Spawned, channel: Channel) -> None:
        self.pid, self.pidfd, self._channel = spawned.pid, spawned.pidfd, channel

    async def _heard(self) -> dict[str, Any]:
        received = await asyncio.to_thread(self._channel.receive_wait, TIMEOUT)
        assert received is not None
        return received[0]

    async def report(self) -> dict[str, Any]:
        """What it says of itself."""
        self._channel.send({"report": True})
        return await self._heard()

    def tell(self, **message: object) -> None:
        self._channel.send(message)

    async def ended(self) -> ExitStatus:
        """How it ended, once it has."""
        await _readable(self.pidfd)
        # nothing tells when its middle process ends and leaves it to us
        while (found := processes.wait_status(self.pidfd)) is None:  # noqa: ASYNC110
            await asyncio.sleep(0)
        return found

    async def destroy(self) -> None:
        processes.pidfd_signal(self.pidfd, signal.SIGKILL)
        await _readable(self.pidfd)
        processes.wait_status(self.pidfd)
        os.close(self.pidfd)
        self._channel.close()


async def _readable(pidfd: int) -> None:
    loop, event = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(pidfd, event.set)
    try:
        async with asyncio.timeout(TIMEOUT):
            await event.wait()
    finally:
        loop.remove_reader(pidfd)


Start = Callable[..., Awaitable[TemplateProcess]]
Fork = Callable[..., Awaitable[Worker]]
