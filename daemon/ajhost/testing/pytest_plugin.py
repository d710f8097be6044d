"""The pytest fixtures `ajhost_host` and `ajhost_nats`, found by themselves where ajhost is installed.

def test_a_mail_is_sent(ajhost_host):
    host = ajhost_host("shop.mail:send")
    assert host.call("email:new", {"to": "ada"}).json() == {"sent": "ada"}
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ajhost.testing.host import TestHost


class StartHost:
    """The type of the fixture `ajhost_host`: a function that starts hosts."""

    def __init__(self, server: str, started: ExitStack) -> None:
        """Only the fixture calls this."""
        self._server, self._started = server, started

    def __call__(
        self,
        target: str | None = None,
        /,
        *,
        routes: Mapping[str, str | Mapping[str, Any]] | None = None,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> TestHost:
        """Starts a host and returns it when it serves. The fixture stops it at the end of the test.

        :param target: `module:function`, which serves every type of task; or `routes`, as in `[handlers]`.
        :param settings: more settings by section, like `{"workers": {"count": 2}}`.
        :raises HostFailed: with its log.
        """
        from ajhost.testing.host import TestHost

        served = dict(routes or {})
        if target is not None:
            served[""] = target
        host = TestHost(self._server, served, settings=settings, env=env)
        self._started.callback(host.stop)
        host.start()
        return host


@pytest.fixture(scope="session")
def ajhost_nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Starts a nats-server with JetStream, one for all tests of the session, and yields its address."""
    from ajhost.adapters.nats.server_process import EmbeddedNatsServer, NatsServerFailed

    server = EmbeddedNatsServer(tmp_path_factory.mktemp("nats"))
    problem = ""
    try:
        server.start()
    except NatsServerFailed as error:
        problem = str(error)
    if problem:  # outside of the `except`, since pytest would also show the handled exception
        pytest.fail(problem, pytrace=False)
    try:
        yield server.url
    finally:
        server.stop()


@pytest.fixture
def ajhost_host(ajhost_nats: str) -> Iterator[StartHost]:
    """Starts real hosts that serve handlers of the test's choice: `ajhost_host("shop.mail:send")`."""
    with ExitStack() as started:
        yield StartHost(ajhost_nats, started)
