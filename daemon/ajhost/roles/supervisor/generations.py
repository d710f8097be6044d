"""Generations: the settings and the code of each start and reload, and the template that forks workers of it.

The queues outlive them: what waits there runs on the code of a later generation.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from ajhost.adapters.nats.credentials import trusts_interpreter
from ajhost.roles.messages import GenerationSpec
from ajhost.roles.shared_queue.token_queues import TokenQueue, open_queue, queue_names
from ajhost.roles.supervisor.template_process import TemplateProcess
from ajhost.settings.sections import Settings

_log = logging.getLogger("ajhost.supervisor")
_KEPT = 8
"""Code that dies at every start must not fill the memory."""


@dataclass(slots=True)
class Generation:
    """`template` is None before it has loaded the handlers, and after its death."""

    spec: GenerationSpec
    template: TemplateProcess | None = None
    in_use: bool = False
    """Whether it was given slots: then it is forgotten once it is not the fleet's and has no worker (`retire`)."""
    failures: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT))
    """Why its last workers died before they served."""

    @property
    def routes(self) -> list[str]:
        """The names of its routes; the index of one is the number in ledger entries."""
        return [handler.route for handler in self.spec.handlers]


class Generations(dict[int, Generation]):
    """The generations that have a worker or are about to have one, by number."""

    def __init__(self, runtime: Path) -> None:
        super().__init__()
        self.runtime = runtime
        self.queues: list[TokenQueue] = []
        self._last = 0

    def make(self, settings: Settings) -> GenerationSpec:
        """Makes the next generation, with the queues that its routes need, and without a template."""
        self._last += 1
        known = {queue.name for queue in self.queues}
        self.queues.extend(open_queue(n) for n in queue_names(settings.handlers) if n not in known)
        spec = GenerationSpec(
            generation=self._last,
            runtime=self.runtime,
            nats=settings.nats,
            python=settings.python,
            workers=settings.workers,
            handlers=settings.handlers,
            signature=settings.signature,
            log=settings.log,
            schemas=settings.nats.service,
            tell_trust=trusts_interpreter(settings.nats),
        )
        self[self._last] = Generation(spec)
        return spec

    async def load(self, spec: GenerationSpec) -> TemplateProcess:
        """Starts the template of a generation. Logs what its imports have left behind.

        :raises TemplateFailed: with every reason.
        """
        template = await TemplateProcess.start(spec, self.queues, spec.python.import_timeout)
        for warning in template.warnings:
            _log.warning("the imports left something behind: %s", warning)
        if template.distrust:
            _log.warning("%s", template.distrust)
        return template

    def template(self, number: int) -> TemplateProcess | None:
        generation = self.get(number)
        return None if generation is None else generation.template

    def note_failure(self, number: int, why: str) -> None:
        """Notes why a worker died before it served."""
        if (generation := self.get(number)) is not None:
            generation.failures.append(why)

    def retire(self, alive: set[int]) -> None:
        """Forgets the generations that were in use and are not `alive` any more, and ends their templates."""
        for number in [n for n, generation in self.items() if generation.in_use and n not in alive]:
            if (template := self.pop(number).template) is not None:
                template.close()

    async def end_templates(self) -> None:
        templates = [generation.template for generation in self.values() if generation.template is not None]
        self.clear()
        await asyncio.gather(*(template.end() for template in templates))
