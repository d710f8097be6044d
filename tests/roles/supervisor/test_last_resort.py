"""The supervisor as the last subscriber, on a real server that is not always quick."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest

from ajhost.core.connection_table import Lost
from ajhost.core.fleet import Fleet
from ajhost.core.host_counters import Counters
from ajhost.core.timings import STANDBY_SUBSCRIBE_LIMIT
from ajhost.roles.supervisor.last_resort import LastResort
from tests.support.host_parts import SUBJECT, HostParts, body
from tests.support.nats import round_trip
from tests.support.waiting import until


async def test_a_server_that_stands_still_while_we_subscribe_finds_us_when_it_goes_on(
    parts: HostParts,
) -> None:
    last_resort = LastResort(parts.standby, Fleet(1 << 20), Counters())
    await parts.server.stand_still()
    began = time.monotonic()
    await last_resort.subscribe()  # somebody hangs, and waits for us
    assert time.monotonic() - began > STANDBY_SUBSCRIBE_LIMIT / 2
    known = asyncio.create_task(last_resort.subscribe(None))
    await asyncio.sleep(0.05)
    assert not known.done(), "the last connection would end, and nobody would serve when it goes on"
    parts.server.send_signal(signal.SIGCONT)
    await known
    # the PONG for which nobody waits any more comes now, and must not be the end of all others
    for number in range(3):
        await last_resort.unsubscribe()
        await last_resort.subscribe()
        await parts.client.publish(SUBJECT, body(number), f"R.{number}")
        await round_trip(parts.client)
    parts.consumer.begin()
    await until(lambda: sorted(parts.ran) == [b"R.0", b"R.1", b"R.2"])
    assert parts.answers == {}


async def test_a_subscription_that_begins_as_the_connection_ends_leaves_the_loop_its_turns(
    parts: HostParts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It found nobody to ask and asked again at once: the turn that knows that the connection is over never came."""
    connection = parts.standby.connection
    told, begun = connection.connection_ended, list[asyncio.Task[None]]()

    def ended(epoch: int, event: Lost) -> None:
        begun.append(asyncio.create_task(connection.subscribe([SUBJECT], "ajhost")))
        told(epoch, event)

    def stop(number: int, frame: object) -> None:
        raise AssertionError("the loop has no turn")

    monkeypatch.setattr(connection, "connection_ended", ended)
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 8.0)
    try:
        await parts.server.restart()
        await until(lambda: begun)
        await asyncio.gather(*begun)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
    assert connection.connected
