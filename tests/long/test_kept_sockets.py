"""As `tests/host/test_kept_sockets.py`, at full size."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.kill_scenarios import (
    Fault,
    a_worker_then_everybody,
    a_worker_then_the_supervisor,
    endure,
    everybody_and_the_next_two_starts,
    everybody_at_once,
    everybody_while_a_worker_hangs,
)
from tests.support.nats import NatsServer

pytestmark = pytest.mark.long


@pytest.mark.parametrize(
    "fault",
    [
        everybody_at_once,
        everybody_and_the_next_two_starts,
        a_worker_then_the_supervisor,
        a_worker_then_everybody,
        everybody_while_a_worker_hangs,
    ],
)
async def test_twenty_times(nats_server: NatsServer, tmp_path: Path, fault: Fault) -> None:
    # at a rate that the host can serve in the time that it is there
    print(f"\n{fault.__name__}: {await endure(nats_server, tmp_path, fault, 20, 60)}")
