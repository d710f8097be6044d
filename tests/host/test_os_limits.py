"""Limits that are reached while the host serves: told by name and cure, every request answered, back by itself."""

from __future__ import annotations

from tests.support.control_group import control_group, in_group
from tests.support.factories import NewHost
from tests.support.router import Router

HANDLERS = """
import asyncio

async def child(task):
    process = await asyncio.create_subprocess_exec("/bin/true")
    return await process.wait()
"""


async def test_a_limit_of_processes_that_is_reached_while_serving_is_told_and_got_over(
    new_host: NewHost, router: Router
) -> None:
    unlimited = {"pids.max": "max"}
    with control_group("pids", unlimited, unlimited) as group:
        host = new_host(
            handlers={"child": "children:child", "echo": "echo"},
            modules={"children": HANDLERS},
            sections={"workers": {"count": 1}},
            launcher=in_group(group),
        )
        async with host:
            most = int((group / "pids.current").read_text())
            (group / "pids.max").write_text(str(most))
            told = f"{group}/pids.max is {most}, {most} are there: TasksMax=, --pids-limit"
            refused = "handler error: BlockingIOError: [Errno 11] Resource temporarily unavailable"
            assert (await router.request("child")).text == f"{refused} ({told})"
            reload = await host.reload()
            assert reload.status == 1
            assert told in reload.stderr
            (group / "pids.max").write_text("1")
            old = host.kill(0)
            await host.log("cannot fork: Resource temporarily unavailable")
            echo = await router.send("echo", b"waits", deadline=30)
            (group / "pids.max").write_text("max")
            assert (await router.reply(echo)).body == b"waits"
            await host.refilled(0, old)
            assert (await router.request("child")).body == b"0"
