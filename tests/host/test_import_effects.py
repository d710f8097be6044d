"""What imports leave behind: the start, a reload and `check` say the same of it."""

from __future__ import annotations

import socket

import pytest

from tests.support.factories import NewHost
from tests.support.router import Router

FILE = "KEPT = open(__file__)\nasync def send(task): return b'served'\n"
CONNECTED = "import socket\nKEPT = socket.create_connection({place})\nasync def send(task): return b'served'\n"


@pytest.mark.parametrize("preload", [True, False])
async def test_start_reload_and_check_refuse_and_tell_alike(new_host: NewHost, router: Router, preload: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        connected = CONNECTED.format(place=server.getsockname())
        place = f"127.0.0.1:{server.getsockname()[1]}"
        sections = {"python": {"preload": preload}}
        handlers = {"send": "acme:send"}
        host = new_host(handlers=handlers, modules={"acme": FILE}, sections=sections)
        async with host:
            told = f"the file {host.application}/acme.py is open"
            assert (told in host.log_text()) is preload
            checked = await host.command("check")
            assert (checked.status, told in checked.stderr) == (0, preload), checked
            host.write_module("acme", connected)
            for command in ("check", "reload"):
                result = await host.command(command)
                assert (result.status == 0) is not preload, result
                assert (f"a connection to {place} is open" in result.stderr) is preload
            assert (await router.request("send")).body == b"served"
        if preload:
            host = new_host(handlers=handlers, modules={"acme": connected}, sections=sections)
            assert await host.run_to_end() == 70
            assert f"a connection to {place} is open" in host.log_text()
