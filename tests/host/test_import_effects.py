"""What imports leave behind: the start, a reload and `check` say the same of it."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from tests.support import processes
from tests.support.factories import NewHost
from tests.support.router import Router

FILE = "KEPT = open(__file__)\nasync def send(task): return b'served'\n"
CONNECTED = "import socket\nKEPT = socket.create_connection({place})\nasync def send(task): return b'served'\n"

TEMPORARY = """
import atexit, os, pathlib, shutil, tempfile, warnings
from functools import partial
warnings.simplefilter("error")
KEPT = tempfile.TemporaryDirectory()
REGISTERED = tempfile.mkdtemp()
atexit.register(shutil.rmtree, REGISTERED)
FILE = pathlib.Path(tempfile.mkstemp()[1])
atexit.register(partial(FILE.unlink, missing_ok=True))
MADE = KEPT.name, REGISTERED, str(FILE)
async def send(task): return [os.getpid(), [path for path in MADE if os.path.exists(path)]]
"""


async def test_what_an_import_wants_removed_at_its_exit_is_there_for_all_workers_of_its_generation(
    new_host: NewHost, router: Router
) -> None:
    host = new_host(handlers={"send": "acme:send"}, modules={"acme": TEMPORARY}, sections={"workers": {"count": 1}})
    async with host:
        first, made = (await router.request("send")).json()
        assert len(made) == 3
        await host.command("recycle")
        while (again := (await router.request("send")).json())[0] == first:
            pass
        await processes.gone(first)
        assert (await router.request("send")).json() == [again[0], made]
        await host.reload()
        await processes.gone(again[0])
        _, new = (await router.request("send")).json()
        while any(map(os.path.exists, made)):  # noqa: ASYNC110  # nothing tells that a file is gone
            await asyncio.sleep(0.01)
        assert (await router.request("send")).json()[1] == new
        assert await host.terminate() == 0
        assert not any(map(os.path.exists, new))
        assert "ResourceWarning" not in host.log_text()


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
