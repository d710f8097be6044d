"""One generation: the settings and the code of one start or reload, and what became of its workers so far."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from ajhost.roles.process_specs import GenerationSpec
from ajhost.roles.supervisor.template_process import TemplateProcess

_KEPT = 8
"""A code that dies at every start would fill the memory in days."""


@dataclass(slots=True)
class Generation:
    """`template` is None before it has loaded the handlers, and after its death."""

    spec: GenerationSpec
    template: TemplateProcess | None = None
    in_use: bool = False
    """Whether workers were asked for: it can be forgotten when the last one is gone."""
    failures: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT))
    """Why its last workers died before they served."""

    @property
    def number(self) -> int:
        """Counted from 1 since the start."""
        return self.spec.generation

    def close(self) -> None:
        """Ends its template; its workers live on."""
        if self.template is not None:
            self.template.close()
            self.template = None
