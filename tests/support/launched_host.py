"""A host that another program starts: within a control group, on one CPU, with closed streams."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.support.host import Host, Process


class LaunchedHost(Host):
    """A host that `launcher` starts: it gets the host's own program as its last arguments."""

    launcher: Sequence[str] = ()

    async def _execute(
        self, output: int, notify: str, launcher: Sequence[str] = (), pass_fds: Sequence[int] = ()
    ) -> Process:
        return await super()._execute(output, notify, (*launcher, *self.launcher), pass_fds)


def in_group(group: Path) -> Sequence[str]:
    """The launcher that joins a control group."""
    return ("/bin/sh", "-c", f'echo $$ > {group / "cgroup.procs"} && exec "$@"', "sh")
