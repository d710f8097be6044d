"""Names that cannot be looked up, and addresses that cannot be reached from here, are told as that."""

from __future__ import annotations

import errno
import os

import pytest

from ajhost.adapters.nats.happy_eyeballs import unreachable
from ajhost.adapters.nats.resolver import look_up
from ajhost.core.server_pool import Address, Server
from ajhost.ledger.connection_status import Reason


@pytest.mark.parametrize("name", ["a..b", "x" * 64 + ".example", "é" * 60 + ".example"])
def test_a_name_that_python_cannot_encode_is_one_without_an_address(name: str) -> None:
    with pytest.raises(OSError, match="no name that can be looked up"):
        look_up(name)


@pytest.mark.parametrize(
    ("number", "reason"), [(errno.EADDRNOTAVAIL, Reason.REFUSED), (errno.EMFILE, Reason.RESOURCES)]
)
def test_a_machine_without_ipv6_lacks_no_resources(number: int, reason: Reason) -> None:
    """`localhost` is ::1, too, where IPv6 is switched off: only 127.0.0.1 says what is wrong with the server."""
    failures = [
        (Address("::1", 4222), OSError(number, os.strerror(number))),
        (Address("127.0.0.1", 4222), OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))),
    ]
    failed = unreachable(Server("localhost"), failures)
    assert failed.event.reason is reason
    assert os.strerror(number).lower() in str(failed)


def test_a_machine_whose_ports_are_all_in_use_lacks_resources() -> None:
    used_up = OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL))
    failed = unreachable(Server("127.0.0.1"), [(Address("127.0.0.1", 4222), used_up)])
    assert "ip_local_port_range" in str(failed)
    assert failed.event.reason is Reason.RESOURCES
