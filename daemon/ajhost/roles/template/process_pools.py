"""Finds the pools of processes and the programs read from that an import has made, in the template.

Their results come by pipes. All workers share those, so that each would take results that are another one's.
"""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from ajhost.adapters.linux.proc import is_dead

_POOLS = {
    "concurrent.futures.process": "ProcessPoolExecutor",
    "multiprocessing.pool": "Pool",
}
"""Modules, and their classes. Neither is imported here: an import that has made a pool has done that."""


def shared_results() -> Iterator[tuple[str, str]]:
    """Yields the name of each, and what it is. It looks at all objects: call it only where a pipe is open."""
    modules = [(sys.modules.get(module), name) for module, name in _POOLS.items()]
    pools = tuple(getattr(module, name) for module, name in modules if hasattr(module, name))
    threads = getattr(sys.modules.get("multiprocessing.pool"), "ThreadPool", ())
    for found in gc.get_objects():
        kind = type(found)  # not `isinstance`: an object's `__class__` may be anything, and raise
        if issubclass(kind, pools) and not issubclass(kind, threads) and _is_open(found):
            yield kind.__name__, f"a {kind.__name__}, a pool of processes,"
        elif issubclass(kind, subprocess.Popen) and _is_read(found):
            program = found.args if isinstance(found.args, str | bytes) else next(iter(found.args), "")
            name = program.decode(errors="replace") if isinstance(program, bytes) else str(program)
            yield name, f"the output of the process {name} (pid {found.pid})"


def _is_open(pool: Any) -> bool:
    """Whether a pool takes work: one that an import has used and shut down is none of ours."""
    return not getattr(pool, "_shutdown_thread", False) and getattr(pool, "_state", "RUN") == "RUN"


def _is_read(process: subprocess.Popen[bytes]) -> bool:
    pipes = [getattr(process, name, None) for name in ("stdout", "stderr")]
    return any(pipe is not None and not pipe.closed for pipe in pipes) and not is_dead(process.pid)
