"""Whatever happens to a connection, in whatever order: once there is a good server, everything is as it was."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.support.connection_faults import FAULTS, Company, Fault

USUAL = (
    (Fault("kill the server", 0.4),),
    (Fault("swallow", 1.0), Fault("lock out", 0.4)),
    (Fault("false server", 0.4, "half an object"), Fault("stop the server", 1.0)),
    (Fault("secret is half written", 0.4), Fault("restart the server", 0.1)),
    (Fault("lame duck", 0.4), Fault("cut after", 0.4, number=5), Fault("refuse", 0.1)),
)
"""Played in any case, before those that are drawn."""


def _endure(directory: Path, seconds: float, examples: int, *, always_the_same: bool) -> None:
    """The named ones, then as many drawn ones as the time allows."""
    end = time.monotonic() + seconds
    company = Company(directory)
    with asyncio.Runner() as runner:

        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=always_the_same,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(st.lists(FAULTS, min_size=1, max_size=4).map(tuple))
        def any_sequence(faults: tuple[Fault, ...]) -> None:
            if time.monotonic() < end:
                runner.run(company.endure(faults))

        try:
            for faults in USUAL:
                runner.run(company.endure(faults))
            any_sequence()
        finally:
            runner.run(company.__aexit__(None, None, None))


def test_any_sequence_of_faults_ends_well(tmp_path: Path) -> None:
    _endure(tmp_path, 30, 12, always_the_same=True)


@pytest.mark.long
def test_any_long_sequence_of_faults_ends_well(tmp_path: Path) -> None:
    _endure(tmp_path, 600, 1000, always_the_same=False)
