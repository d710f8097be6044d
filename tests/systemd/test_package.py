"""The package: what it installs, with which rights, and what it leaves."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.systemd.conftest import DROP_INS
from tests.systemd.lab import ROOT, Lab

SEND = """
import socket
said = []
for address in ("127.0.0.1", "198.51.100.1"):
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", (address, 9))
    except OSError as error:
        said.append(error.strerror)
    else:
        said.append("sent")
open("/var/lib/ajhost/send", "w").write(" ".join(said))
"""


@pytest.fixture(scope="module")
def bare(package: Path) -> Iterator[Lab]:
    """A machine without any network, where the package was installed."""
    machine = Lab(f"ajhost-bare-{os.getpid()}")
    try:
        machine.up("--network", "private")
        machine.install(package)
        yield machine
    finally:
        machine.down()


async def test_it_installs_without_a_network_and_starts_nothing(bare: Lab) -> None:
    assert (await bare.do("ajhost", "--version")).strip()
    assert await bare.show("UnitFileState") == "disabled"
    assert await bare.show("ActiveState") == "inactive"


async def test_settings_are_for_root_and_the_service_secrets_for_root_alone(bare: Lab) -> None:
    listed = await bare.do(
        "stat",
        "--format",
        "%n %U %G %a",
        *("/etc/ajhost", "/etc/ajhost/ajhost.toml", "/etc/ajhost/conf.d", "/etc/ajhost/credentials"),
    )
    assert listed.splitlines() == [
        "/etc/ajhost root ajhost 750",
        "/etc/ajhost/ajhost.toml root ajhost 640",
        "/etc/ajhost/conf.d root ajhost 750",
        "/etc/ajhost/credentials root root 700",
    ]
    refused = await bare.run("cat", "/etc/ajhost/ajhost.toml", user="nobody")
    assert "Permission denied" in refused.stderr


async def test_the_units_are_without_fault_and_locked_down(bare: Lab) -> None:
    for unit in ("ajhost.service", "ajhost@a.service"):
        verified = await bare.run("systemd-analyze", "verify", "--man=no", unit)
        assert (verified.status, verified.stdout, verified.stderr) == (0, "", "")
        # the threshold is ten times the figure that it prints
        secure = await bare.run("systemd-analyze", "security", "--offline=true", "--threshold=10", unit)
        assert secure.status == 0, secure.stdout


async def test_the_unit_says_what_its_promises_rest_on(bare: Lab) -> None:
    wanted = {
        "Type": "notify",
        "NotifyAccess": "main",
        "KillMode": "mixed",
        "OOMPolicy": "continue",
        "RuntimeDirectoryPreserve": "restart",
        "Restart": "always",
        "RestartUSec": "0",
        "StartLimitIntervalUSec": "0",
    }
    for unit in ("ajhost.service", "ajhost@a.service"):
        shown = await bare.do("systemctl", "show", *(f"--property={name}" for name in wanted), unit)
        assert dict(line.split("=", 1) for line in shown.splitlines()) == wanted


async def test_no_file_belongs_to_the_service_or_can_be_written_by_others(bare: Lab) -> None:
    for name in (await bare.do("dpkg", "--listfiles", "ajhost")).splitlines():
        path = bare.path(name)
        found = path.lstat()
        assert found.st_uid == 0, name
        assert stat.S_ISLNK(found.st_mode) or not found.st_mode & 0o022, name


def test_the_documentation_is_in_it(package: Path) -> None:
    listed = subprocess.run(["dpkg-deb", "--contents", package], capture_output=True, text=True, check=True).stdout
    for page in ("man1/ajhost.1.gz", "man5/ajhost.toml.5.gz", "man8/ajhost.8.gz"):
        assert f"./usr/share/man/{page}\n" in listed
    for completion in (
        "bash-completion/completions/ajhost",
        "zsh/vendor-completions/_ajhost",
        "fish/vendor_completions.d/ajhost.fish",
    ):
        assert f"./usr/share/{completion}\n" in listed
    for page in (
        "install.md",
        "operate.md",
        "hardening.md",
        "deploy-handlers.md",
        "copyright",
        "changelog.gz",
    ):
        assert f"./usr/share/doc/ajhost/{page}\n" in listed


async def test_every_library_is_in_it_and_every_module_can_be_imported(bare: Lab) -> None:
    shutil.copy(Path(__file__).with_name("package_contents.py"), bare.path("/var/tmp"))
    found = json.loads(await bare.do("/usr/lib/ajhost/bin/python", "-I", "/var/tmp/package_contents.py", user="nobody"))
    with (ROOT / "pyproject.toml").open("rb") as file:
        needed = {_name(text) for text in tomllib.load(file)["project"]["dependencies"]}
    assert needed <= set(found["distributions"])
    assert found["missing"] == []
    # which pytest alone imports
    assert set(found["broken"]) <= {"ajhost.testing.pytest_plugin"}, found["broken"]
    assert {"ajhost.adapters.http", "ajhost.adapters.prometheus", "ajhost.roles.worker.main"} <= set(found["modules"])
    listed = bare.path("/usr/share/doc/ajhost/bundled-libraries.txt").read_text()
    assert {_name(line) for line in listed.splitlines()} == set(found["distributions"])


async def test_the_bill_of_materials_names_every_library_with_version_licence_and_hashes(bare: Lab) -> None:
    bill = json.loads(bare.path("/usr/share/doc/ajhost/ajhost.cdx.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    listed = bare.path("/usr/share/doc/ajhost/bundled-libraries.txt").read_text()
    named = {f"{found['name']}=={found['version']}" for found in bill["components"]}
    assert named == {line.lower().replace("_", "-") for line in listed.split()}
    for found in bill["components"]:
        assert found["licenses"], found
        assert found["properties"], found
    assert "http" not in "".join((ROOT / "packaging" / name).read_text() for name in LOCKS)


LOCKS = ("libraries.lock", "build-tools.lock")


def _name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9_.-]", requirement)[0].lower().replace("_", "-")


@pytest.mark.long  # the package is built for the other tests once
def test_a_package_that_is_built_again_is_the_same(package: Path) -> None:
    done = subprocess.run([ROOT / "scripts" / "build-deb"], check=True, capture_output=True, text=True)
    assert (ROOT / done.stdout.split()[-1]).read_bytes() == package.read_bytes()


@pytest.mark.long  # 10 s of CPU, for what only a change of the packaging changes
@pytest.mark.skipif(shutil.which("lintian") is None, reason="lintian is not installed")
def test_lintian_has_nothing_to_say(package: Path) -> None:
    done = subprocess.run(
        ["lintian", "--allow-root", "--fail-on", "error,warning", package],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


async def test_shells_complete_commands(bare: Lab) -> None:
    script = (
        "source /usr/share/bash-completion/completions/ajhost; COMP_WORDS=(ajhost rel); COMP_CWORD=1; "
        '_ajhost_completion ajhost; echo "${COMPREPLY[@]}"'
    )
    assert (await bare.do("bash", "-c", script)).split() == ["reload"]


async def test_the_program_is_deaf_to_its_surroundings(bare: Lab) -> None:
    bare.write("/tmp/evil/click.py", "raise SystemExit('hijacked')")
    bare.write("/tmp/evil/ajhost/__init__.py", "raise SystemExit('hijacked')")
    await bare.do("sh", "-c", "cd /tmp/evil && PYTHONPATH=/tmp/evil PYTHONHOME=/tmp/evil ajhost --version")


async def test_it_lists_what_is_wrong_with_the_settings_and_does_not_try_again(bare: Lab) -> None:
    bare.path("/etc/ajhost/ajhost.toml").write_text('[nats]\nservers = "nats://127.0.0.1"\n[wrokers]\ncount = 0\n')
    assert (await bare.run("systemctl", "start", "ajhost")).status != 0
    await bare.until_shows("ActiveState", "failed")
    assert await bare.show("ExecMainStatus") == "78"
    assert await bare.show("NRestarts") == "0"
    log = await bare.log()
    assert "servers" in log
    assert "wrokers" in log


async def test_the_drop_in_network_closes_all_but_what_it_names(bare: Lab) -> None:
    await bare.do("sh", "-c", "ip link set lo up && ip address add 198.51.100.1/32 dev lo")
    bare.write("/srv/send.py", SEND)
    bare.write(
        f"{DROP_INS}/zz-send.conf",
        "[Service]\nType=oneshot\nRestart=no\nWatchdogSec=0\nExecStopPost=\nExecStart=\n"
        "ExecStart=/usr/lib/ajhost/bin/python /srv/send.py\n",
    )
    try:
        for expected in ("sent sent", "sent Operation not permitted"):
            await bare.do("systemctl", "daemon-reload")
            await bare.do("systemctl", "start", "ajhost")
            assert bare.path("/var/lib/ajhost/send").read_text() == expected
            shutil.copy(bare.path("/usr/share/ajhost/drop-ins/network.conf"), bare.path(DROP_INS))
    finally:
        shutil.rmtree(bare.path(DROP_INS))
        await bare.do("systemctl", "daemon-reload")


async def test_a_removal_ends_what_runs(bare: Lab) -> None:
    units = ("ajhost.service", "ajhost@a.service")
    for name, directory in (("ajhost", "/run/ajhost"), ("a", "/run/ajhost-a")):
        # there is no server: they wait for it
        bare.path(f"/etc/ajhost/{name}.toml").write_text(
            f'[runtime]\ndirectory = "{directory}"\n[handlers.""]\ntarget = "json:dumps"\n'
        )
    await bare.do("systemctl", "start", "--no-block", *units)
    for unit in units:
        await bare.until_logged("waiting for NATS", "-u", unit)
        assert await bare.pid(unit) in await bare.processes(unit)
    # as images of containers bring it: every start and stop of a service is refused
    bare.write("/usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", 0o755)
    await bare.do("dpkg", "--no-triggers", "--remove", "ajhost")
    listed = await bare.do("ps", "-e", "-o", "args=", user="root")
    assert "ajhost" not in listed
    for directory in ("/run/ajhost", "/run/ajhost-a"):
        assert not bare.path(directory).exists()
    assert bare.path("/etc/ajhost/ajhost.toml").exists()


async def test_a_purge_leaves_nothing_but_the_locked_user(bare: Lab, package: Path) -> None:
    bare.write("/etc/ajhost/conf.d/mine.toml", "")
    bare.write("/etc/ajhost/credentials/nats.creds", "secret", 0o600)
    bare.write("/etc/systemd/system/ajhost.service.d/mine.conf", "[Service]\n")
    theirs = ("/var/lib/ajhost-backup/x", "/var/cache/ajhost-mirror/x", "/srv/ajhost-data/x")
    for path in theirs:
        bare.write(path, "not of the package")
    assert bare.path("/var/lib/ajhost-a").is_symlink()
    bare.install(package)
    await bare.do("systemctl", "enable", "ajhost", "ajhost@a")
    await bare.do("dpkg", "--no-triggers", "--remove", "ajhost")
    assert bare.path("/etc/ajhost/credentials/nats.creds").exists()
    assert not bare.path("/usr/lib/ajhost").exists()
    await bare.do("dpkg", "--no-triggers", "--purge", "ajhost")
    for path in theirs:
        assert bare.path(path).exists()
        shutil.rmtree(bare.path(path).parent)
    left = await bare.do(
        "find",
        "/etc",
        "/usr",
        "/var/lib",
        "/var/cache",
        "/run",
        "-xdev",
        "-name",
        "*ajhost*",
        "-not",
        "-path",
        "/usr/share/doc-base/*",
    )
    assert left == ""
    assert (await bare.do("getent", "passwd", "ajhost")).strip().endswith(":/usr/sbin/nologin")
    assert await bare.show("LoadState") == "not-found"
