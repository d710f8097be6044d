"""What only control groups of version 2 tell systemd, on a kernel of its own where the machine's are of version 1."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.systemd.own_kernel import OwnKernel, why_not

TOLD = "ajhost.service: A process of this unit has been killed by the OOM killer."


@pytest.fixture
def own_kernel(package: Path) -> Iterator[OwnKernel]:
    with OwnKernel(package) as started:
        yield started


@pytest.mark.long
@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_systemd_is_told_of_a_kill_for_memory_and_keeps_the_unit(own_kernel: OwnKernel) -> None:
    seen = own_kernel.result()
    assert seen["kills"] == 1
    assert seen["killed"].startswith("AJ-Error: worker died: SIGKILL")
    assert seen["after"] == "on"
    assert TOLD in seen["journal"]
    assert seen["before"]["OOMPolicy"] == "continue"
    assert seen["now"] == seen["before"], "active, the same supervisor, no restart"
