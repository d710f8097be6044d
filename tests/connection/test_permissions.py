"""Permissions that are missing, taken away and given back: told with the one to grant, never as if all were well."""

from __future__ import annotations

from pathlib import Path

from tests.support.host import Host
from tests.support.nats import NatsServer
from tests.support.router import subject_of
from tests.support.truth import cut_off, listens, says_the_truth, subscribed_again, with_pages

HANDLERS = {"echo": "echo"}
ACCESS = {"user": "host", "password": "pw"}
ALL = "{subscribe: ['>'], publish: ['>']}"
BACK = 6.0


def _config(permissions: str) -> str:
    users = f"{{user: host, password: pw, permissions: {permissions}}}, {{user: router, password: pw}}"
    return f"authorization {{ users = [{users}] }}".replace("'", '"')


async def test_a_host_that_may_not_subscribe_is_not_ready_and_says_what_to_grant(tmp_path: Path) -> None:
    sections = with_pages(nats=ACCESS)
    async with NatsServer(
        tmp_path, config=_config("{subscribe: ['_INBOX.>'], publish: ['>']}"), monitored=True
    ) as server:
        host = Host(tmp_path, nats=server.url, handlers=HANDLERS, sections=sections)
        try:
            await host.launch()
            line = await host.log(
                lambda text: "ERROR" in text and subject_of("echo") in text and "ubscri" in text, timeout=10.0
            )
            assert "pw" not in line.text.split()
            await cut_off(server)
            said = await says_the_truth(host, listens(sections), 0, 2)
            assert subject_of("echo") in said.reason
            assert not host.notifications.having("READY")
            await server.reload(_config(ALL))
            await host.ready(BACK + 4.0)
            await subscribed_again(server, 2, BACK)
            await says_the_truth(host, listens(sections), 2)
            assert await host.terminate() == 0
        finally:
            await host.destroy()


async def test_a_permission_that_is_taken_away_and_given_back(tmp_path: Path) -> None:
    sections = with_pages(nats=ACCESS)
    async with (
        NatsServer(tmp_path, config=_config(ALL), monitored=True) as server,
        Host(tmp_path, nats=server.url, handlers=HANDLERS, sections=sections) as host,
    ):
        await says_the_truth(host, listens(sections), 2)
        await server.reload(_config("{subscribe: ['_INBOX.>'], publish: ['>']}"))
        await cut_off(server)
        await says_the_truth(host, listens(sections), 0, 2)
        await server.reload(_config(ALL))
        await subscribed_again(server, 2, BACK)
        await says_the_truth(host, listens(sections), 2)
