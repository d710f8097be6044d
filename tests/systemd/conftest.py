"""Machines for the tests of the service: booted once, the package installed, the unit as new for each test."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.systemd.lab import APPLICATION, ROOT, InstalledHost, Lab, why_not

DROP_INS = "/etc/systemd/system/ajhost.service.d"


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The package, built from this checkout by whichever process of this run asks first."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    shared = tmp_path_factory.getbasetemp()
    shared = shared if worker_id == "master" else shared.parent
    with (shared / "package.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        built = list(shared.glob("*.deb"))
        if not built:
            done = subprocess.run([ROOT / "scripts" / "build-deb"], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            # a copy: one of the tests builds it again
            built = [Path(shutil.copy(ROOT / done.stdout.split()[-1], shared))]
    return built[0]


@pytest.fixture(scope="session")
def lab(package: Path) -> Iterator[Lab]:
    """The machine."""
    machine = Lab(f"ajhost-{os.getpid()}")
    try:
        machine.up()
        machine.install(package)
        yield machine
    finally:
        machine.down()


@pytest.fixture
async def host(lab: Lab) -> AsyncIterator[InstalledHost]:
    """The service, stopped, without drop-ins, with the tests' handlers in place."""
    application = lab.path(APPLICATION)
    application.mkdir(parents=True, exist_ok=True)
    for source in (
        ROOT / "tests" / "support" / "handlers.py",
        Path(__file__).with_name("output_handlers.py"),
    ):
        shutil.copy(source, application / source.name)
    yield InstalledHost(lab)
    await lab.run("sh", "-c", "systemctl kill --signal KILL ajhost; systemctl stop ajhost; systemctl reset-failed")
    if lab.path(DROP_INS).exists():
        shutil.rmtree(lab.path(DROP_INS))
        await lab.do("systemctl", "daemon-reload")


async def drop_in(lab: Lab, name: str, text: str) -> None:
    """Gives the unit a drop-in of the test's."""
    lab.write(f"{DROP_INS}/{name}.conf", text)
    await lab.do("systemctl", "daemon-reload")
