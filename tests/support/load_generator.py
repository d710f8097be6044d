"""The load generator in C, for rates that would cost a Python client too much: built once, run as a process."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.support.program import run

SOURCE = Path(__file__).parents[1] / "load" / "ajload.c"
CACHE = Path(__file__).parents[2] / ".cache"
COMPILER = "gcc"
HEADER = Path("/usr/include/nats/nats.h")


class AjloadFailed(AssertionError):
    """It could not run, or was not understood; the text holds its stderr."""


def missing() -> str | None:
    """Why it cannot be built here, None if it can."""
    if shutil.which(COMPILER) is None:
        return f"the load generator needs {COMPILER}"
    if not HEADER.exists():
        return "the load generator needs Debian's libnats-dev"
    return None


def build() -> Path:
    """The program, compiled if this source was not compiled yet. Safe when several do it at once."""
    target = CACHE / f"ajload-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]}"
    if not target.exists():
        CACHE.mkdir(exist_ok=True)
        new = target.with_suffix(f".{os.getpid()}")
        subprocess.run(
            (COMPILER, "-O2", "-Wall", "-Werror", "-o", new, SOURCE, "-lnats", "-lm", "-lpthread"), check=True
        )
        new.replace(target)
    return target


async def ajload(url: str, *arguments: str, timeout: float = 120.0) -> dict[str, Any]:
    """Runs `ajload -s URL ARGUMENTS` and returns its figures. What they must be is for the caller to check.

    Raises AjloadFailed when it was used wrongly or found no server.
    """
    result = await run(build(), "-s", url, *arguments, timeout=timeout)
    if result.status not in (0, 1):
        raise AjloadFailed(f"ajload {' '.join(arguments)}: {result.status}: {result.stderr}")
    figures: dict[str, Any] = json.loads(result.stdout)
    return figures
