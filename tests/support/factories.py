"""What a test starts servers, hosts and routers with; tests/conftest.py makes fixtures of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any, Protocol, TypedDict, TypeVar, Unpack, runtime_checkable

from tests.support.host import Host, Section
from tests.support.nats import JetStream, NatsServer
from tests.support.router import Router

T = TypeVar("T")


class ServerOptions(TypedDict, total=False):
    """What `NatsServer` takes."""

    config: str
    jetstream: JetStream
    processors: int | None
    address: str
    monitored: bool
    port: int


class HostOptions(TypedDict, total=False):
    """What `Host` takes; `nats` is the test's server unless it is given, `directory` the test's."""

    nats: str | Sequence[str]
    handlers: Mapping[str, str | Section] | None
    modules: Mapping[str, str] | None
    sections: Mapping[str, Section] | None
    env: Mapping[str, str] | None
    launcher: Sequence[str]
    directory: Path


class StartServer(Protocol):
    async def __call__(self, **options: Unpack[ServerOptions]) -> NatsServer: ...


class NewHost(Protocol):
    def __call__(self, **options: Unpack[HostOptions]) -> Host: ...


class StartHost(Protocol):
    async def __call__(self, **options: Unpack[HostOptions]) -> Host: ...


class StartRouter(Protocol):
    async def __call__(self, url: str = "", **connect: Any) -> Router: ...


class Enter(Protocol):
    async def __call__(self, peer: AbstractAsyncContextManager[T]) -> T: ...


@runtime_checkable
class Explaining(Protocol):
    """Who has something to say about a failure: a log."""

    def explain(self, error: BaseException) -> None: ...


class Started:
    """What a test has started. It ends with the test, the last one first.

    The first of `servers` is the test's server: where hosts and routers go that are not told another one.
    """

    def __init__(self, directory: Path, servers: list[NatsServer]) -> None:
        self.servers = servers
        self.explaining: list[Explaining] = []
        self._directory = directory
        self._stack = AsyncExitStack()

    async def enter(self, peer: AbstractAsyncContextManager[T]) -> T:
        """Enters it as `async with` does."""
        entered = await self._stack.enter_async_context(peer)
        if isinstance(entered, Explaining) and entered not in self.explaining:
            self.explaining.append(entered)
        return entered

    async def start_server(self, **options: Unpack[ServerOptions]) -> NatsServer:
        self.servers.append(NatsServer(self._directory, **options))
        return await self.enter(self.servers[-1])

    def new_host(self, **options: Unpack[HostOptions]) -> Host:
        if "nats" not in options:
            assert self.servers, "this test has no server yet; its parameter nats_server is one"
            options["nats"] = self.servers[0].url
        options.setdefault("directory", self._directory)
        host = Host(**options)
        self._stack.push_async_callback(host.destroy)
        self.explaining.append(host)
        return host

    async def start_host(self, **options: Unpack[HostOptions]) -> Host:
        if "nats" not in options:
            options["nats"] = await self._server()
        return await self.enter(self.new_host(**options))

    async def start_router(self, url: str = "", **connect: Any) -> Router:
        return await self.enter(Router(url or await self._server(), **connect))

    async def _server(self) -> str:
        if not self.servers:
            await self.start_server()
        return self.servers[0].url

    async def end(self, error: BaseException | None) -> None:
        """Leaves all of it, as an `async with` does whose block raised `error`."""
        trace = error.__traceback__ if error else None
        await self._stack.__aexit__(type(error) if error else None, error, trace)
