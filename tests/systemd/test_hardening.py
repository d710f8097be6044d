"""What the sandbox forbids, and what each drop-in of the package allows; docs/hardening.md says the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support.nats import NatsServer
from tests.systemd.conftest import DROP_INS, drop_in
from tests.systemd.lab import APPLICATION, ROOT, InstalledHost, Lab

FORBIDDEN = {
    "machine code",
    "cffi callback",
    "script in state",
    "script in tmp",
    "shared object in tmp",
    "user namespace",
    "write srv",
    "write etc",
    "write run",
    "read home",
    "meminfo",
    "netlink",
    "raw packets",
    "scheduler",
    "affinity",
    "nicer",
    "multicast",
    "io_uring",
    "chown",
}
ALLOWS = {
    "jit": {"machine code", "cffi callback"},
    "sub-processes": {"script in state", "script in tmp", "shared object in tmp", "user namespace"},
    "files": {"write srv"},
    "system-information": {"meminfo", "netlink"},
    "scheduling": {"scheduler", "affinity", "nicer"},
    "memory": set(),
    "network": set(),
}


UNITS = ROOT / "units"


def directives(unit: Path) -> list[str]:
    """The lines of a unit that say something."""
    lines = (line.strip() for line in unit.read_text().splitlines())
    return [line for line in lines if line and line[0] not in "#["]


def test_every_line_that_forbids_something_is_explained() -> None:
    text = (UNITS / "ajhost.service").read_text()
    section = text.partition("# ---- hardening\n")[2].partition("[Install]")[0]
    names = {line.partition("=")[0] for line in section.splitlines() if line and line[0] != "#"}
    assert len(names) > 25
    explained = (ROOT / "docs" / "hardening.md").read_text().partition("## Line by line")[2]
    assert {name for name in names if f"`{name}=" not in explained} == set()


def test_every_drop_in_is_named_where_the_need_for_it_is() -> None:
    needs = (ROOT / "docs" / "hardening.md").read_text()
    files = {path.name for path in (UNITS / "drop-ins").iterdir()}
    assert {name for name in files if f"`{name}`" not in needs + (ROOT / "docs" / "install.md").read_text()} == set()


OWN_USER = ["DynamicUser=yes", "User=ajhost-%i", "SupplementaryGroups=ajhost"]
"""What an instance has in place of the user that the only host runs as."""


def test_a_host_of_several_differs_from_the_only_one_by_its_name_user_and_credentials() -> None:
    several = [
        line.replace("ajhost-%i", "ajhost").replace("%i.toml", "ajhost.toml").replace("ajhost %i", "ajhost")
        for line in directives(UNITS / "ajhost@.service")
        if line not in OWN_USER and line != "SetCredential=credentials:none"
    ]
    only = [line for line in directives(UNITS / "ajhost.service") if line not in ("User=ajhost", "Group=ajhost")]
    assert [line.replace("credentials@%i", "credentials") for line in several] == only


async def probe(lab: Lab) -> dict[str, str | None]:
    """Runs the probe in the unit's place."""
    shutil.copy(Path(__file__).with_name("sandbox_probe.py"), lab.path(APPLICATION))
    lab.write("/etc/ajhost/credentials/probe", "x", 0o600)
    lab.path("/srv/exports").mkdir(exist_ok=True)
    lab.path("/srv/exports").chmod(0o777)
    await drop_in(
        lab,
        "zz-probe",
        "[Service]\nType=oneshot\nRestart=no\nWatchdogSec=0\nExecStopPost=\nExecStart=\n"
        f"ExecStart=/usr/lib/ajhost/bin/python {APPLICATION}/sandbox_probe.py\n",
    )
    try:
        await lab.do("systemctl", "start", "ajhost")
    finally:
        lab.path("/etc/ajhost/credentials/probe").unlink()
    found: dict[str, str | None] = json.loads(lab.path("/var/lib/ajhost/probe.json").read_text())
    return found


@pytest.mark.usefixtures("host")
async def test_the_sandbox_forbids_what_the_documentation_says_and_nothing_else(lab: Lab) -> None:
    found = await probe(lab)
    assert {name for name, error in found.items() if error is not None} == FORBIDDEN, found


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize("name", ALLOWS)
async def test_each_drop_in_allows_what_it_is_for_and_nothing_else(lab: Lab, name: str) -> None:
    lab.path(DROP_INS).mkdir(parents=True, exist_ok=True)
    shutil.copy(lab.path(f"/usr/share/ajhost/drop-ins/{name}.conf"), lab.path(DROP_INS))
    found = await probe(lab)
    assert {name for name, error in found.items() if error is not None} == FORBIDDEN - ALLOWS[name], found


async def test_every_drop_in_is_understood(lab: Lab, host: InstalledHost) -> None:
    drop_ins = sorted(lab.path("/usr/share/ajhost/drop-ins").glob("*.conf"))
    assert {path.stem for path in drop_ins} == {*ALLOWS, "devices", "credentials"}
    lab.path(DROP_INS).mkdir(parents=True, exist_ok=True)
    for path in drop_ins:
        shutil.copy(path, lab.path(DROP_INS))
    verified = await lab.run("systemd-analyze", "verify", "--man=no", host.unit)
    assert (verified.status, verified.stderr) == (0, "")


DROP_IN_NAMES = sorted(path.name for path in (UNITS / "drop-ins").iterdir())


# an instance differs by its name, user and credentials alone, as is tested above
@pytest.mark.parametrize("unit", ["ajhost.service", pytest.param("ajhost@other.service", marks=pytest.mark.long)])
async def test_the_unit_starts_with_each_drop_in_as_it_is_shipped(
    lab: Lab, host: InstalledHost, nats_server: NatsServer, unit: str
) -> None:
    started = InstalledHost(lab, unit, unit.partition(".")[0].partition("@")[2] or "ajhost")
    started.configure(nats_server.url, {"echo": "echo"})
    directory = f"/etc/systemd/system/{unit}.d"
    lab.path(directory).mkdir(parents=True, exist_ok=True)
    try:
        for name in DROP_IN_NAMES:
            shutil.copy(lab.path(f"/usr/share/ajhost/drop-ins/{name}"), lab.path(directory))
            await lab.do("systemctl", "daemon-reload")
            assert (await lab.run("systemctl", "restart", unit)).status == 0, (name, await lab.log(unit))
            assert await lab.show("NRestarts", unit) == "0"
            lab.path(f"{directory}/{name}").unlink()
    finally:
        await lab.run("systemctl", "stop", unit)
        shutil.rmtree(lab.path(directory))
        await lab.do("systemctl", "daemon-reload")


SET_UP = {
    "217": "User=nosuch",
    "226": "ReadWritePaths=/srv/nothing-there",
    "243": "LoadCredential=x:/srv/nothing-there",
    "203": "ExecStart=\nExecStart=/usr/bin/ajhost-nosuch",
}


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize("status", SET_UP)
async def test_what_systemd_cannot_set_up_is_not_tried_again_and_again(lab: Lab, status: str) -> None:
    await drop_in(lab, "broken", f"[Service]\n{SET_UP[status]}\n")
    assert (await lab.run("systemctl", "start", "ajhost")).status != 0
    await lab.until_shows("ActiveState", "failed")
    assert (await lab.show("ExecMainStatus"), await lab.show("NRestarts")) == (status, "0")
