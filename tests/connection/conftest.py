"""A host whose pages say how it stands with its server, and a server that can be asked what is so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import pytest

from tests.support.factories import StartHost, StartServer
from tests.support.host import Host, Section
from tests.support.nats import NatsServer
from tests.support.reported_state import listens, with_pages


class Watched(NamedTuple):
    """`pages`: where the host has its pages."""

    server: NatsServer
    host: Host
    pages: str


class StartWatched(Protocol):
    async def __call__(self, handlers: Mapping[str, str | Section], *, config: str = "", **more: Any) -> Watched: ...


@pytest.fixture
def start_watched(start_server: StartServer, start_host: StartHost) -> StartWatched:
    """`server, host, pages = await start_watched(HANDLERS, config=...)`; `more` is what `with_pages` takes."""

    async def start(handlers: Mapping[str, str | Section], *, config: str = "", **more: Any) -> Watched:
        sections = with_pages(**more)
        server = await start_server(config=config, monitored=True)
        return Watched(server, await start_host(handlers=handlers, sections=sections), listens(sections))

    return start
