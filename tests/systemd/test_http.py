"""Metrics and health of the installed service, in its sandbox."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request

from tests.support.host import steady
from tests.support.nats import NatsServer, free_port
from tests.support.router import Router
from tests.systemd.conftest import drop_in
from tests.systemd.lab import InstalledHost, Lab

PROCESS = {
    "process_start_time_seconds",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_virtual_memory_bytes",
    "process_open_fds",
    "process_max_fds",
}


def _get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


async def get(port: int, page: str) -> tuple[int, str]:
    """Status and text of a page."""
    return await asyncio.to_thread(_get, f"http://127.0.0.1:{port}/{page}")


async def test_metrics_and_health_need_no_drop_in_and_work_with_the_tightest(
    lab: Lab, host: InstalledHost, nats_server: NatsServer, router: Router
) -> None:
    port = free_port()
    await drop_in(lab, "network", lab.path("/usr/share/ajhost/drop-ins/network.conf").read_text())
    host.configure(nats_server.url, {"echo": "echo"}, {"http": {"listen": f"127.0.0.1:{port}"}})
    await host.start()
    assert (await router.request("echo", b"x")).body == b"x"

    async def counted() -> bool:
        return '\najhost_tasks_completed_total{route="echo"} 1.0\n' in (await get(port, "metrics"))[1]

    await lab.until(counted, "the task is counted")
    status, text = await get(port, "metrics")
    assert status == 200
    samples = {line.split()[0].partition("{")[0] for line in text.splitlines() if line[0] != "#"}
    assert samples >= PROCESS
    assert 'ajhost_workers{state="serving"} 2.0' in text
    assert await get(port, "healthz") == (200, "ok\n")
    assert (await get(port, "readyz"))[0] == 200
    async with asyncio.timeout(10):  # what a worker counts is told at its next heartbeat
        while steady(json.loads((await get(port, "status"))[1])) != steady(await host.status()):
            pass
