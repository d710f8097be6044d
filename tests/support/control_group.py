"""A real control group with a limit, of whichever version this machine has (cgroups(7))."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

_TOP = Path("/sys/fs/cgroup")


@contextlib.contextmanager
def control_group(controller: str, legacy: Mapping[str, str], unified: Mapping[str, str]) -> Iterator[Path]:
    """Makes one, and removes it; skips the test where that is refused. Limits are texts by file, for each version."""
    is_legacy = (_TOP / controller / "cgroup.procs").exists()
    group = (_TOP / controller if is_legacy else _TOP) / f"ajhost-test-{os.getpid()}"
    try:
        group.mkdir()
        for name, text in (legacy if is_legacy else unified).items():
            (group / name).write_text(text)
    except OSError as error:
        if group.is_dir():
            group.rmdir()
        pytest.skip(f"no control group can be made here: {error}")
    yield group
    group.rmdir()


def in_group(group: Path) -> Sequence[str]:
    """The launcher that joins a control group."""
    return ("/bin/sh", "-c", f'echo $$ > {group / "cgroup.procs"} && exec "$@"', "sh")
