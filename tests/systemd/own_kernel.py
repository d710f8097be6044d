"""A systemd on a kernel of its own (user-mode-linux), for machines whose control groups are of version 1."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any, Self

from tests.support.nats import nats_server_binary
from tests.systemd import lab

TIMEOUT = 600.0
"""Seconds of patience: beside other tests it has the CPU that they leave."""


def why_not() -> str | None:
    """Why this machine cannot start another kernel, or need not, as its own has what is missed elsewhere."""
    if (reason := lab.why_not()) is not None:
        return reason
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        return "not needed: the control groups of this machine tell systemd what its kernel kills for memory"
    if not Path("/usr/bin/linux.uml").exists() and "SYSTEMD_LAB_UML" not in os.environ:
        return (
            "the control groups of this machine (version 1) do not tell systemd what the kernel kills for memory, "
            "and a kernel of its own needs Debian's package user-mode-linux"
        )
    return None


class OwnKernel:
    """One run of `memory_job.py`: half a minute of one CPU, so it runs beside other tests, and gives way to them."""

    def __init__(self, package: Path) -> None:
        job = Path(__file__).with_name("memory_job.py")
        self._name = f"ajhost-kernel-{os.getpid()}"
        # that machine has a /tmp of its own
        self._package = Path(shutil.copy(package, lab.ROOT / ".cache" / f"{self._name}.deb"))
        arguments = (self._package, nats_server_binary(), lab.ROOT / "tests" / "support")
        self._process = subprocess.Popen(
            [
                *("nice", "-n", "19", str(lab.PROGRAM), "uml", "--name", self._name, "--quiet"),
                *("--", "/usr/bin/python3", str(job), *map(str, arguments)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=lab.ROOT,
        )

    def result(self) -> dict[str, Any]:
        """What the job saw; waits for its end. Raises LabFailed."""
        stdout, stderr = self._process.communicate(timeout=TIMEOUT)
        if self._process.returncode != 0:
            raise lab.LabFailed(f"systemd-lab uml: {self._process.returncode}\n{stdout}{stderr}")
        seen: dict[str, Any] = json.loads(stdout)
        return seen

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(ValueError):  # streams that `communicate` has closed
                self._process.communicate()
        self._package.unlink()
