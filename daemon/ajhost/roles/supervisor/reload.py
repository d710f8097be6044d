"""Reload: new settings and code are proven first, then slot by slot is replaced. If that fails, the old ones serve.
Rejects another `queue_group`, `[runtime]` or `[http]`, and says which routes are new or no longer served. A stop ends
one under way. A template that died is replaced in the same way, until that works.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable
from dataclasses import fields, replace

from ajhost.adapters.linux import os_error_texts
from ajhost.core.fleet import Scale
from ajhost.core.timings import POLL_INTERVAL, RENEW_FIRST, RENEW_LONGEST, SERVE_LIMIT
from ajhost.roles.messages import GenerationSpec
from ajhost.roles.supervisor.control_socket import Decision
from ajhost.roles.supervisor.readiness import STOPPING
from ajhost.roles.supervisor.template_process import TemplateFailed, TemplateProcess
from ajhost.roles.supervisor.worker_pool import WorkerPool
from ajhost.settings.sections import HttpSettings, RuntimeSettings, Settings

_log = logging.getLogger("ajhost.supervisor")


def turned_down(unfit: str, *, stopping: bool) -> Decision:
    """Returns the refusal of a reload while the host starts or stops, which `unfit` says.

    While it starts there is no generation to replace yet, and systemd waits for the first READY.
    """
    _log.error("nothing is reloaded: %s", unfit)
    hint = "" if stopping else " (restart it if what it began with has changed since)"
    return Decision(False, f"nothing is reloaded: {unfit}{hint}")


class Reloader:
    """The maker of every generation after the first.

    `load` reads the files again, or raises an error whose text lists every mistake. `on_reloaded(before, spec)`
    is called after a success, with the settings before it.
    """

    def __init__(
        self,
        pool: WorkerPool,
        settings: Settings,
        load: Callable[[], Settings],
        on_reloaded: Callable[[Settings, GenerationSpec], None],
    ) -> None:
        self._pool, self._generations = pool, pool.generations
        self.settings, self._load, self._on_reloaded = settings, load, on_reloaded
        self._lock = asyncio.Lock()
        self._starting: asyncio.Task[TemplateProcess] | None = None
        self._ended = asyncio.Event()
        self._renewed, self._delay = -math.inf, RENEW_FIRST

    def end(self) -> None:
        """Ends a reload under way as rejected, however long its imports would take: the host stops."""
        self._ended.set()
        if self._starting is not None:
            self._starting.cancel()

    async def reload(self) -> Decision:
        """Takes all that the files say now, or nothing except NATS servers and credentials (`NatsAccess.offer`)."""
        async with self._lock:
            try:
                settings = await asyncio.to_thread(self._load)
            except Exception as error:
                return Decision(False, _said(error))
            if (changed := self._fixed(settings)) is not None:
                return Decision(False, changed)
            await self._pool.access.offer(settings.nats, self._pool.fleet.generation)
            return await self._change(settings)

    def _fixed(self, new: Settings) -> str | None:
        old = self.settings
        if new.nats.queue_group != old.nats.queue_group:
            return (
                f"nats.queue_group: {old.nats.queue_group!r} cannot become {new.nats.queue_group!r} while running: "
                "two groups would run each task twice; restart instead"
            )
        for section, before, after in (("runtime", old.runtime, new.runtime), ("http", old.http, new.http)):
            if (key := _changed_key(before, after)) is not None:
                return f"{section}.{key}: cannot change while running; restart instead"
        return None

    async def _change(self, settings: Settings) -> Decision:
        pool = self._pool
        if self._ended.is_set():
            return Decision(False, STOPPING)
        old = Scale(pool.fleet.generation, pool.fleet.count)
        spec = self._generations.make(settings)
        generation = spec.generation
        self._starting = asyncio.create_task(self._generations.load(spec))
        try:
            template = await self._starting
        except BaseException as error:
            self._generations.pop(generation, None)
            if self._ended.is_set():
                return Decision(False, STOPPING)
            if isinstance(error, TemplateFailed | OSError):
                return Decision(False, _said(error))
            raise
        finally:
            self._starting = None
        pool.change_over(generation, template)
        if (failed := await self._served(generation)) is not None:
            if self._generations.template(old.generation) is not None:
                pool.handle(old)
            return Decision(False, failed)
        routes = _changed_routes(self.settings, settings)
        before, self.settings = self.settings, settings
        self._on_reloaded(before, spec)
        if pool.fleet.draining:
            return Decision(True, f"generation {generation} is in place, and the host stays drained{routes}")
        return Decision(True, f"generation {generation} serves{routes}")

    async def _served(self, generation: int) -> str | None:
        """Waits until the generation serves in every slot. Returns why it does not; None when it does.

        Slots are replaced one after the other, so each has the limit.
        """
        pool, python = self._pool, self._generations[generation].spec.python
        limit = SERVE_LIMIT + (python.start_timeout if python.lifespan is not None else 0.0)
        end, served = time.monotonic() + limit, 0
        while not pool.fleet.complete():
            if (now_serving := pool.fleet.in_place(generation)) > served:
                served, end = now_serving, time.monotonic() + limit
            failures = self._generations[generation].failures
            if len(failures) > 1:  # a single death may have had any cause
                return failures[-1]
            if time.monotonic() > end:
                why = self._why_not_connected(generation)
                return f"the new workers did not serve within {limit:.0f} s{why}"
            if self._ended.is_set():
                return STOPPING
            await asyncio.sleep(POLL_INTERVAL)
        return None

    def _why_not_connected(self, generation: int) -> str:
        """Returns what the first worker of a generation that is not subscribed reports of its connection."""
        for worker in self._pool.workers.values():
            if worker.generation == generation:
                status = worker.ledger.connection()
                if not status.subscribed and status.text:
                    return f": NATS at {status.server}: {status.text.removeprefix(f'{status.server}: ')}"
        return ""

    async def renew(self) -> None:
        """Replaces a generation whose template died by one with the same settings. Tries until that works.

        It pauses first if the one before was renewed a moment ago: the code itself may end each template, and every
        new generation replaces all workers.
        """
        if time.monotonic() - self._renewed < RENEW_LONGEST:
            await self._pause()
        else:
            self._delay = RENEW_FIRST
        while True:
            # the lock is held for one attempt only, so that a reload that mends the code can come between two
            async with self._lock:
                present = self._generations.template(self._pool.fleet.generation)
                if present is not None or self._ended.is_set():
                    return
                try:
                    settings = replace(self.settings, nats=self._pool.access.present)
                    decision = await self._change(settings)
                except Exception as error:  # whatever it is: without a template no worker is ever replaced
                    decision = Decision(False, repr(error))
            if decision.taken:
                self._renewed = time.monotonic()
                return
            _log.error("no new template: %s", decision.text)
            await self._pause()

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._delay):
                await self._ended.wait()
        self._delay = min(self._delay * 2, RENEW_LONGEST)


def _said(error: BaseException) -> str:
    """Returns the error's text, with the limit for which the kernel refused a thread or a descriptor."""
    limit = os_error_texts.limit_behind(error)
    return f"{error} ({limit})" if limit else str(error)


def _changed_routes(before: Settings, after: Settings) -> str:
    """Says which routes a reload has removed and added: tasks of a route removed by mistake find no responder."""
    old, new = ([handler.route for handler in settings.handlers] for settings in (before, after))
    gone, more = ([r for r in one if r not in other] for one, other in ((old, new), (new, old)))
    said = (("no longer served", gone), ("new", more))
    return "".join(f"; {what}: {', '.join(map(repr, routes))}" for what, routes in said if routes)


def _changed_key(
    before: RuntimeSettings | HttpSettings | None, after: RuntimeSettings | HttpSettings | None
) -> str | None:
    """Returns the first key in which two versions of a section differ; the first of all if one has no such section."""
    known = before or after
    if before == after or known is None:
        return None
    return next(f.name for f in fields(known) if getattr(before, f.name, None) != getattr(after, f.name, None))
