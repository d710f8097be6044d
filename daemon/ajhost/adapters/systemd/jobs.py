"""Finds whether systemd is about to start this unit again: asks `systemctl`, as sd_notify(3) has no message for it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

_SYSTEMCTL = "/usr/bin/systemctl"


def own_unit() -> str | None:
    """Returns the name of the service whose control group this process is in; None if it is in none."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        # "0::/system.slice/ajhost.service"; in a hybrid hierarchy also one line for each controller
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "name=systemd"):
            for part in reversed(path.split("/")):
                if part.endswith(".service"):
                    return part
    return None


async def restart_follows(timeout: float) -> bool:
    """Whether systemd stops the unit in order to start it again (a job of type `restart`).

    False for any other stop, and if `systemctl` does not answer within `timeout` seconds (no systemd, no D-Bus). Raises
    nothing.
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
