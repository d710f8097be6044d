"""What a handler starts ends with its worker at the latest, however it was detached."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.support import processes
from tests.support.factories import Enter, NewHost, StartHost
from tests.support.router import Router

APP = """
import os, time

async def daemonise(task):
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.setsid()
            os.write(writer, b"%d" % os.getpid())
            os.execvp("sleep", ["sleep", "300"])
        os._exit(0)
    os.wait()
    time.sleep(0.05)
    return [os.getpid(), int(os.read(reader, 20))]
"""


async def test_a_daemonised_process_ends_with_its_own_worker_and_no_other(
    start_host: StartHost, router: Router
) -> None:
    host = await start_host(
        handlers={"daemonise": "app:daemonise"}, modules={"app": APP}, sections={"workers": {"count": 2}}
    )
    daemons: dict[int, int] = {}
    while len(daemons) < 2:
        worker, daemon = (await router.request("daemonise")).json()
        daemons[worker] = daemon
    # the supervisor is their parent, and has looked at its children since
    await asyncio.sleep(2.5)
    slots = {pid: slot for slot, pid in host.workers().items()}
    first, second = daemons
    host.kill(slots[first])
    await processes.gone(daemons[first], 5.0)
    await host.refilled(slots[first], first)
    await asyncio.sleep(1.2)  # the supervisor looks for what a dead worker has left for a second
    assert Path(f"/proc/{daemons[second]}/cmdline").read_text().startswith("sleep")
    assert (await host.command("recycle", str(slots[second]))).status == 0
    await processes.gone(daemons[second], 15.0)


HELPERS = """
import multiprocessing, os, pathlib
manager = multiprocessing.Manager()
pathlib.Path(__file__).with_name(f"{os.getpid()}.helper").write_text(str(manager._process.pid))
shared = manager.dict()

async def count(task):
    shared["n"] = shared.get("n", 0) + 1
    return shared["n"]
"""


async def test_a_process_that_imports_start_ends_with_its_generation_its_check_or_the_host(
    new_host: NewHost, enter: Enter, router: Router
) -> None:
    host = new_host(handlers={"count": "app:count"}, modules={"app": HELPERS}, sections={"workers": {"count": 2}})

    def helpers() -> list[int]:
        return [int(path.read_text()) for path in host.application.glob("*.helper")]

    await enter(host)
    (first,) = helpers()
    assert [(await router.request("count")).json() for _ in range(4)] == [1, 2, 3, 4]
    assert (await host.command("check")).status == 0
    (checked,) = set(helpers()) - {first}
    await processes.gone(checked, 0.5)
    old = host.workers()
    host.kill(0)
    await host.refilled(0, old[0])
    assert (await router.request("count")).json() == 5
    assert (await host.reload()).status == 0
    await processes.gone(first, 15.0)
    (second,) = set(helpers()) - {first, checked}
    assert (await router.request("count")).json() == 1
    assert await host.terminate() == 0
    await processes.gone(second, 0.5)
