"""What the sandbox forbids, and what each drop-in of the package allows; docs/hardening.md says the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

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
    "read home",
    "meminfo",
    "netlink",
    "raw packets",
    "scheduler",
    "affinity",
    "chown",
}
ALLOWS = {
    "jit": {"machine code", "cffi callback"},
    "sub-processes": {"script in state", "script in tmp", "shared object in tmp", "user namespace"},
    "files": {"write srv"},
    "system-information": {"meminfo", "netlink"},
    "scheduling": {"scheduler", "affinity"},
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
    assert {
        name for name in files if f"`{name}`" not in needs + (ROOT / "docs" / "install.md").read_text()
    } == set()


def test_a_host_of_several_differs_from_the_only_one_by_its_name() -> None:
    several = [
        line.replace("ajhost-%i", "ajhost").replace("%i.toml", "ajhost.toml").replace("ajhost %i", "ajhost")
        for line in directives(UNITS / "ajhost@.service")
    ]
    assert several == directives(UNITS / "ajhost.service")


async def probe(lab: Lab) -> dict[str, str | None]:
    """Runs the probe in the unit's place."""
    shutil.copy(Path(__file__).with_name("probe.py"), lab.path(APPLICATION))
    lab.write("/etc/ajhost/credentials/probe", "x", 0o600)
    lab.path("/srv/exports").mkdir(exist_ok=True)
    lab.path("/srv/exports").chmod(0o777)
    await drop_in(
        lab,
        "zz-probe",
        "[Service]\nType=oneshot\nRestart=no\nWatchdogSec=0\nExecStopPost=\nExecStart=\n"
        f"ExecStart=/usr/lib/ajhost/bin/python {APPLICATION}/probe.py\n",
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
