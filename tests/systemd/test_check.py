"""Root's `ajhost check` says what the service will: it runs in the unit's sandbox, as the unit's user."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from tests.support.nats import NatsServer
from tests.systemd.conftest import drop_in
from tests.systemd.lab import APPLICATION, InstalledHost, Lab

WHO = """
import os
from pathlib import Path
Path(os.environ["STATE_DIRECTORY"], "imported-by").write_text(f"{os.getuid()} {os.environ.get('HOME')}")
def who(task): ...
"""


async def agree(lab: Lab, host: InstalledHost, good: bool) -> str:
    """Check and start say the same; what check said."""
    checked = await lab.run("ajhost", "check", "-c", host.file)
    started = await lab.run("systemctl", "start", host.unit)
    await lab.run("systemctl", "stop", host.unit)
    assert (checked.status == 0, started.status == 0) == (good, good), (checked, await lab.log(host.unit))
    return checked.stdout + checked.stderr


async def test_handlers_are_imported_as_the_services_user_and_nothing_is_left(
    lab: Lab, host: InstalledHost, nats_server: NatsServer
) -> None:
    lab.write(f"{APPLICATION}/who.py", WHO)
    host.configure(nats_server.url, {"who": "who:who"})
    before = set(lab.path("/run").iterdir())
    said = await lab.do("ajhost", "check")
    assert f"{host.file}: good, 1 handler" in said
    uid = (await lab.do("id", "-u", "ajhost")).strip()
    assert lab.path("/var/lib/ajhost/imported-by").read_text() == f"{uid} /var/lib/ajhost"
    assert set(lab.path("/run").iterdir()) == before
    assert "ajhost-check" not in await lab.do("systemctl", "list-units", "--all", "--plain", "ajhost-check*")


async def test_a_host_that_runs_is_not_touched(lab: Lab, host: InstalledHost, nats_server: NatsServer) -> None:
    port = {"http": {"listen": "127.0.0.1:9464"}}
    host.configure(nats_server.url, {"echo": "echo"}, port)
    await host.start()
    pid = await host.pid()
    assert (await lab.run("ajhost", "check")).status == 0
    assert (await host.status())["supervisor"]["ready"]
    assert await host.pid() == pid


async def test_code_below_home_is_told(lab: Lab, host: InstalledHost, nats_server: NatsServer) -> None:
    lab.write("/home/ada/app/acme.py", "def send(task): ...\n")
    host.configure(nats_server.url, {"send": "acme:send"}, {"python": {"path": ["/home/ada/app"]}})
    assert "python.path[0]" in await agree(lab, host, False)
    await drop_in(lab, "home", "[Service]\nProtectHome=read-only\n")
    await agree(lab, host, True)
    shutil.rmtree(lab.path("/home/ada"))


async def test_settings_that_only_root_may_read_are_told(
    lab: Lab, host: InstalledHost, nats_server: NatsServer
) -> None:
    host.configure(nats_server.url, {"echo": "echo"})
    lab.write("/etc/ajhost/conf.d/secret.toml", "[log]\nlevel = 'info'\n", 0o600)
    try:
        assert "secret.toml: file: found permission denied" in await agree(lab, host, False)
    finally:
        lab.path("/etc/ajhost/conf.d/secret.toml").unlink()


async def test_credentials_of_the_unit_are_there(lab: Lab, host: InstalledHost, nats_server: NatsServer) -> None:
    lab.write("/etc/ajhost/credentials/password", "secret\n", 0o600)
    host.configure(nats_server.url, {"echo": "echo"}, {"nats": {"user": "u", "password_file": "credentials/password"}})
    try:
        assert (await lab.run("ajhost", "check")).status == 0
    finally:
        lab.path("/etc/ajhost/credentials/password").unlink()


async def test_what_the_sandbox_forbids_at_import_is_told(
    lab: Lab, host: InstalledHost, nats_server: NatsServer
) -> None:
    lab.write(
        f"{APPLICATION}/jit.py",
        "from mmap import *\nmmap(-1, 4096, prot=PROT_READ | PROT_WRITE | PROT_EXEC)\ndef send(task): ...\n",
    )
    host.configure(nats_server.url, {"send": "jit:send"})
    assert "PermissionError" in await agree(lab, host, False)


async def test_a_context_of_root_is_not_the_services(lab: Lab, host: InstalledHost, nats_server: NatsServer) -> None:
    lab.write("/root/.config/nats/context/AJC.json", f'{{"url": "{nats_server.url}"}}', 0o600)
    lab.path(host.file).write_text(
        f'[nats]\ncontext = "AJC"\n[python]\npath = ["{APPLICATION}"]\n[handlers.echo]\ntarget = "handlers:echo"\n'
    )
    assert "nats.context" in await agree(lab, host, False)


CANNOT = {
    "226": ("ReadWritePaths=/srv/nothing-there", "/srv/nothing-there: No such file or directory"),
    "217": ("User=nosuch", "User= names no user"),
    "216": ("SupplementaryGroups=nosuch", "SupplementaryGroups= names no group"),
    "243": ("LoadCredential=x:/srv/nothing-there", "a credential of LoadCredential= cannot be read"),
    "200": ("WorkingDirectory=/srv/nothing-there", "WorkingDirectory= cannot be entered"),
    "226, missing": ("RuntimeDirectory=", "found RuntimeDirectory=, allowed: a directory for [runtime]"),
}


@pytest.mark.parametrize("status", CANNOT)
async def test_a_unit_that_cannot_be_set_up_is_told(
    lab: Lab, host: InstalledHost, nats_server: NatsServer, status: str
) -> None:
    host.configure(nats_server.url, {"echo": "echo"})
    line, words = CANNOT[status]
    await drop_in(lab, "broken", f"[Service]\n{line}\n")
    said = await agree(lab, host, False)
    assert f"status {status[:3]}" in said
    assert words in said


@pytest.mark.parametrize(
    "line",
    [
        "StandardInput=file:/srv/nothing-there",
        "StandardOutput=append:/srv/nothing-there/log",
        "ReadOnlyPaths=%t/ajhost",
    ],
)
async def test_a_line_that_the_checks_own_unit_cannot_have_is_told(
    lab: Lab, host: InstalledHost, nats_server: NatsServer, line: str
) -> None:
    host.configure(nats_server.url, {"echo": "echo"})
    await drop_in(lab, "broken", f"[Service]\n{line}\n")
    assert f"ajhost.service: found {line}, allowed: " in await agree(lab, host, False)


@pytest.mark.parametrize(("line", "limit"), [("TasksMax=3", "pids.max is 3"), ("LimitNPROC=3", "may have 3 processes")])
async def test_a_unit_with_too_few_processes_is_told_with_the_limit(
    lab: Lab, host: InstalledHost, nats_server: NatsServer, line: str, limit: str
) -> None:
    host.configure(nats_server.url, {"echo": "echo"})
    await drop_in(lab, "few", f"[Service]\n{line}\n")
    said = await agree(lab, host, False)
    assert ": cannot fork: Resource temporarily unavailable (" in said
    assert limit in said
    assert limit in await lab.log()


WRONG = """[Service]
Type=simple
KillMode=control-group
Restart=no
RuntimeDirectoryPreserve=no
FileDescriptorStoreMax=0
"""


async def test_a_unit_that_lacks_what_a_host_needs_of_systemd_is_told_by_each_option(
    lab: Lab, host: InstalledHost, nats_server: NatsServer
) -> None:
    host.configure(nats_server.url, {"echo": "echo"})
    assert "warning" not in (await lab.run("ajhost", "check")).stderr
    # with a watchdog systemd listens, whatever the type is
    await drop_in(lab, "wrong", WRONG + "NotifyAccess=none\nWatchdogSec=0\n")
    checked = await lab.run("ajhost", "check")
    assert checked.status == 0  # it would serve
    for option in WRONG.split()[1:]:
        assert f"ajhost.service: warning: found {option}, allowed: " in checked.stderr
    await lab.do("systemctl", "start", "ajhost")
    await until(lab, "the unit has no Type=notify")
    await drop_in(lab, "wrong", "[Service]\nWatchdogSec=1500ms\n")
    await lab.do("systemctl", "restart", "ajhost")
    await until(lab, "the unit's WatchdogSec=1.5s is less than 2s")


async def until(lab: Lab, text: str) -> None:
    """Returns when the service's log has it."""
    async with asyncio.timeout(20):
        while text not in await lab.log():  # noqa: ASYNC110  # the journal is asked from outside
            await asyncio.sleep(0.05)


async def test_an_instance_is_checked_as_its_own_user(lab: Lab, host: InstalledHost, nats_server: NatsServer) -> None:
    lab.write(f"{APPLICATION}/who.py", WHO)
    lab.path("/etc/ajhost/credentials@one").mkdir(mode=0o700)
    one = InstalledHost(lab, "ajhost@one.service", "one")
    one.configure(nats_server.url, {"who": "who:who"})
    try:
        await agree(lab, one, True)
        imported = lab.path("/var/lib/private/ajhost-one/imported-by").read_text()
        assert imported.split()[0] not in ("0", (await lab.do("id", "-u", "ajhost")).strip())
    finally:
        shutil.rmtree(lab.path("/etc/ajhost/credentials@one"))
        Path(lab.path(one.file)).unlink()
