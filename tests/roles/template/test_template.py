"""The template: its start, its end, its death."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ajhost.adapters.linux import proc, processes
from ajhost.roles.handlers import HandlerDescription
from ajhost.roles.supervisor.template_process import TemplateFailed
from tests.roles.template.driver import ENTRY, TIMEOUT, Fork, Start, TemplateDriver
from tests.support.processes import children, gone, info, send


async def test_a_template_tells_what_it_loaded_and_serves_under_its_title(driver: TemplateDriver, start: Start) -> None:
    template = await start(driver.plan("acme:send", "acme:sync"))
    assert template.handlers == (
        HandlerDescription("r0", "acme:send", "async"),
        HandlerDescription("r1", "acme:sync", "thread"),
    )
    assert template.warnings == []
    process = info(template.pid)
    assert process is not None
    assert process.title == "ajhost: template"


async def test_a_template_outlives_signals_that_are_meant_for_the_supervisor(
    driver: TemplateDriver, start: Start, fork: Fork
) -> None:
    template = await start(driver.plan())
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(template.pid, number)
    assert os.getsid(template.pid) == template.pid
    worker = await fork(template)
    assert (await worker.report())["pid"] == worker.pid


async def test_closing_ends_the_template_and_not_its_workers(driver: TemplateDriver, start: Start, fork: Fork) -> None:
    template = await start(driver.plan())
    told: list[str] = []
    template.on_death(told.append)
    worker = await fork(template)
    await template.end()
    assert (await worker.report())["pid"] == worker.pid
    with pytest.raises(TemplateFailed, match="dead"):
        await fork(template)
    assert told == []


async def test_a_killed_template_is_noticed_and_its_workers_live_on(
    driver: TemplateDriver, start: Start, fork: Fork
) -> None:
    template = await start(driver.plan())
    worker = await fork(template)
    died = asyncio.get_running_loop().create_future()
    template.on_death(died.set_result)
    os.kill(template.pid, signal.SIGKILL)
    assert await asyncio.wait_for(died, TIMEOUT) == "SIGKILL"
    assert (await worker.report())["pid"] == worker.pid
    with pytest.raises(TemplateFailed, match="SIGKILL"):
        await fork(template)
    again = asyncio.get_running_loop().create_future()
    template.on_death(again.set_result)
    assert await asyncio.wait_for(again, TIMEOUT) == "SIGKILL"


async def test_forks_that_a_killed_template_still_owes_fail_or_are_handed_over(
    driver: TemplateDriver, start: Start, fork: Fork
) -> None:
    template = await start(driver.plan())
    os.kill(template.pid, signal.SIGSTOP)
    forks = [asyncio.ensure_future(fork(template, slot)) for slot in range(3)]
    await asyncio.sleep(0)
    os.kill(template.pid, signal.SIGKILL)
    async with asyncio.timeout(TIMEOUT):
        results = await asyncio.gather(*forks, return_exceptions=True)
    assert all(isinstance(result, TemplateFailed) for result in results)


async def test_a_template_that_somebody_has_stopped_is_given_up_long_before_a_slow_fork_would_be(
    driver: TemplateDriver, start: Start, fork: Fork
) -> None:
    template = await start(driver.plan())
    died = asyncio.get_running_loop().create_future()
    template.on_death(died.set_result)
    os.kill(template.pid, signal.SIGSTOP)
    with pytest.raises(TemplateFailed, match="stopped"):
        await fork(template)
    assert await asyncio.wait_for(died, TIMEOUT) == "SIGKILL"


async def test_a_template_does_not_outlive_a_supervisor_that_is_killed(driver: TemplateDriver) -> None:
    """Nor does it die with a worker's channel: it goes because its parent did."""
    driver.module("slow", "import time\nprint('importing', flush=True)\ntime.sleep(600)\n")
    script = f"""
import asyncio
from pathlib import Path
from ajhost.roles.supervisor.template_process import rehearse
from ajhost.settings.sections import *
python = PythonSettings(path=(Path({str(driver.app)!r}),))
asyncio.run(rehearse(python, (HandlerSettings("a", "slow:send"),), 600, entry={ENTRY!r}))
"""
    path = f"{Path(processes.__file__).parents[3]}{os.pathsep}{os.environ['PYTHONPATH']}"
    supervisor = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE
    )
    assert supervisor.stdout is not None
    assert await asyncio.wait_for(supervisor.stdout.readline(), TIMEOUT) == b"importing\n"
    (template,) = children(supervisor.pid)
    try:
        supervisor.kill()
        await gone(template.pid, TIMEOUT)
    finally:
        send(template.pid, signal.SIGKILL)
        await supervisor.communicate()


async def test_systemds_words_and_secrets_do_not_reach_user_code(
    driver: TemplateDriver, start: Start, fork: Fork, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("ACME", "kept")
    template = await start(driver.plan())
    report = await (await fork(template)).report()
    assert not [n for n in report["environment"] if n.startswith(("NOTIFY", "LISTEN", "WATCHDOG"))]
    assert "ACME" in report["environment"]
    assert report["argv"] == ["ajhost"]
    for file in ("environ", "cmdline"):
        assert b"geheim" not in Path(f"/proc/{template.pid}/{file}").read_bytes()


async def test_a_failed_start_leaves_no_process_and_no_descriptor(driver: TemplateDriver) -> None:
    driver.module("acme", "1 / 0\n")
    before, alive = set(os.listdir("/proc/self/fd")), proc.children()
    await driver.problems(driver.plan())
    assert set(os.listdir("/proc/self/fd")) == before
    assert proc.children() == alive
