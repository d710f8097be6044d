"""Several hosts on one machine: each with a user, a ledger, a control socket and credentials of its own."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator

import pytest

from tests.support.nats import NatsServer
from tests.support.router import Router
from tests.systemd.lab import InstalledHost, Lab

LOOK = '''
import json
import os
import socket
from pathlib import Path


def look(task):
    """What this host's user can do to the host that the payload names."""
    other, found = task.json(), {"user": os.getuid()}
    for name, act in {
        "ledger": lambda: os.listdir(f"/run/ajhost-{other}/ledger"),
        "state": lambda: Path(f"/run/ajhost-{other}/state.json").read_bytes(),
        "control": lambda: socket.socket(socket.AF_UNIX).connect(f"/run/ajhost-{other}/control"),
        "credentials": lambda: os.listdir(f"/run/credentials/ajhost@{other}.service"),
        "data": lambda: os.listdir(f"/var/lib/ajhost-{other}"),
        "secrets": lambda: os.listdir(f"/etc/ajhost/credentials@{other}"),
        "own credential": lambda: Path(os.environ["CREDENTIALS_DIRECTORY"], "credentials_password").read_bytes(),
        "own data": lambda: Path(os.environ["STATE_DIRECTORY"], "x").write_text("x"),
        "memory": lambda: os.listdir("/proc/%d/fd" % int(Path(f"/run/ajhost-{other}/lock").read_text())),
    }.items():
        try:
            act()
        except OSError as error:
            found[name] = error.strerror
        else:
            found[name] = None
    return found
'''
OWN = {"own credential", "own data"}


@pytest.fixture
async def hosts(lab: Lab, host: InstalledHost, nats_server: NatsServer) -> AsyncIterator[dict[str, InstalledHost]]:
    """Two of them, started."""
    made = {name: InstalledHost(lab, f"ajhost@{name}.service", name) for name in ("one", "two")}
    lab.write("/srv/app/instances.py", LOOK)
    for name, instance in made.items():
        lab.path(f"/etc/ajhost/credentials@{name}").mkdir(mode=0o700)
        lab.write(f"/etc/ajhost/credentials@{name}/password", name, 0o600)
        handlers = {f"look-{name}": "instances:look"}
        instance.configure(nats_server.url, handlers, {"nats": {"servers": [nats_server.url], "queue_group": name}})
        await instance.start()
    yield made
    for name, instance in made.items():
        await instance.stop()
        shutil.rmtree(lab.path(f"/etc/ajhost/credentials@{name}"))


async def test_neither_can_touch_what_is_the_others(lab: Lab, hosts: dict[str, InstalledHost], router: Router) -> None:
    users = set()
    for name, other in (("one", "two"), ("two", "one")):
        found = (await router.request(f"look-{name}", f'"{other}"'.encode())).json()
        users.add(found.pop("user"))
        assert {what for what, error in found.items() if error is None} == OWN, found
    assert len(users) == 2
    for instance in hosts.values():
        assert (await instance.status())["supervisor"]["ready"]
        assert (await lab.run("systemctl", "reload", instance.unit)).status == 0


async def test_one_that_is_killed_comes_back_with_what_it_had(
    lab: Lab, hosts: dict[str, InstalledHost], router: Router
) -> None:
    one = hosts["one"]
    await router.request("look-one", b'"two"')
    await one.kill("KILL", [await one.pid()])
    await lab.until_shows("NRestarts", "1", unit=one.unit)
    assert lab.path("/var/lib/ajhost-one/x").read_text() == "x"
    found = (await router.request("look-one", b'"two"')).json()
    assert {what for what in OWN if found[what] is None} == OWN
