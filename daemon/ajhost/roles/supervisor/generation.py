"""One generation: the settings and code of a start or a reload, its template, and how its workers failed."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from ajhost.roles.specs import GenerationSpec
from ajhost.roles.template.template_process import TemplateProcess

_KEPT = 8
"""Code that dies at every start must not fill the memory."""


@dataclass(slots=True)
class Generation:
    """`template` is None before it has loaded the handlers, and after its death."""

    spec: GenerationSpec
    template: TemplateProcess | None = None
    in_use: bool = False
    """Whether workers were ordered. The generation is forgotten when the last of them has ended."""
    failures: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT))
    """Why its last workers died before they served."""

    @property
    def number(self) -> int:
        """The number of the generation; the first of a start is 1."""
        return self.spec.generation

    def close(self) -> None:
        """Ends its template. Its workers go on."""
        if self.template is not None:
            self.template.close()
            self.template = None
