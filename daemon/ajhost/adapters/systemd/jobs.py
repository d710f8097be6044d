"""What systemd is about to do with our unit, which sd_notify(3) cannot tell: asked of `systemctl`, over D-Bus."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

_SYSTEMCTL = "/usr/bin/systemctl"


def own_unit() -> str | None:
    """The name of the service that this process belongs to, by its control group; None outside of one."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        # "0::/system.slice/ajhost.service", in a hybrid hierarchy one for each controller as well
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "name=systemd"):
            for part in reversed(path.split("/")):
                if part.endswith(".service"):
                    return part
    return None


async def restart_follows(timeout: float) -> bool:
    """Whether the stop that is going on is the first half of a restart, so that a next start will come.

    False if it is an ordinary stop, and if nobody can say within `timeout` seconds: without systemd, without D-Bus.
    Takes 15 ms. Raises nothing.
    """
    unit = own_unit()
    if unit is None or not os.path.exists(_SYSTEMCTL):
        return False
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(timeout):
            process = await asyncio.create_subprocess_exec(
                _SYSTEMCTL,
                *("list-jobs", "--no-legend", "--plain", "--no-pager", unit),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
            output, _ = await process.communicate()
            # "1359 ajhost.service restart running"
            return any(line.split()[1:3] == [unit, "restart"] for line in output.decode().splitlines())
    return False
