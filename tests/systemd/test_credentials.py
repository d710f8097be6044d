"""Secrets: the service has them, and nobody sees them."""

from __future__ import annotations

import asyncio
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.factories import StartRouter, StartServer
from tests.support.nats import NatsServer, free_port
from tests.support.router import Verdict
from tests.support.sweep import sweep
from tests.systemd.conftest import drop_in
from tests.systemd.credential_ways import WAYS, creds
from tests.systemd.lab import InstalledHost, Lab

DIRECTORY = "/etc/ajhost/credentials"
HANDLERS = {"environment": "output_handlers:environment"}
LOOKS = (
    ("systemctl", "show", "ajhost"),
    ("systemctl", "status", "ajhost"),
    ("ajhost", "status", "--json"),
    ("ajhost", "check"),
    ("journalctl", "-o", "verbose", "--all", "--boot"),
)
PUBLIC = ("ca.pem", "host.pem")


@pytest.fixture(autouse=True)
def credentials(lab: Lab) -> Iterator[None]:
    """No secrets of other tests."""
    yield
    shutil.rmtree(lab.path("/etc/ajhost/open"), ignore_errors=True)
    for file in lab.path(DIRECTORY).iterdir():
        file.unlink()


async def all_that_shows(lab: Lab, port: int) -> dict[str, str]:
    """Everything that an onlooker can see of the service: where to what."""
    shown: dict[str, str] = {}
    for command in LOOKS:
        result = await lab.run(*command)
        shown[" ".join(command)] = result.stdout + result.stderr
    for page in ("metrics", "status", "healthz", "readyz"):
        shown[page] = await asyncio.to_thread(_get, f"http://127.0.0.1:{port}/{page}")
    for pid in await lab.processes():
        for file in ("cmdline", "environ"):
            shown[f"/proc/{pid}/{file}"] = lab.path(f"/proc/{pid}/{file}").read_text()
    for path in lab.path("/run/ajhost").rglob("*"):
        if path.is_file():
            shown[str(path)] = path.read_bytes().decode(errors="replace")
    return shown


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        text: str = answer.read().decode()
    return text


@pytest.mark.parametrize("way", sweep(WAYS, "creds", "mutual_tls"))
async def test_a_secret_in_a_credential_reaches_nats_and_no_eye(
    lab: Lab,
    host: InstalledHost,
    tmp_path: Path,
    start_server: StartServer,
    start_router: StartRouter,
    way: str,
) -> None:
    access, port = WAYS[way](tmp_path), free_port()
    for name, text in access.files.items():
        lab.write(f"{DIRECTORY}/{name}", text, 0o600)
    server = await start_server(config=access.server)
    more = {"log": {"level": "debug"}, "http": {"listen": f"127.0.0.1:{port}"}}
    host.configure(server.url, HANDLERS, {**access.sections, **more})
    await host.start()
    router = await start_router(**access.router)
    seen = (await router.request("environment")).json()
    assert seen["credentials"] == sorted(f"credentials_{name}" for name in access.files)
    assert (await lab.run("systemctl", "reload", "ajhost")).status == 0
    # connections of new workers and of the supervisor, after the server's end as after their own
    await server.restart()
    await router.barrier()

    async def served() -> bool:
        return (await router.request("environment")).verdict is Verdict.COMPLETE

    await lab.until(served, "it is on the server's next start")
    shown = await all_that_shows(lab, port)
    shown["a handler's environment"] = str(seen["environment"])
    for where, text in shown.items():
        assert not [secret for secret in access.secrets if secret in text], where
    for name in access.files:
        file = f"/run/credentials/ajhost.service/credentials_{name}"
        assert (await lab.run("cat", file)).status == 0
        assert "Permission denied" in (await lab.run("cat", file, user="nobody")).stderr


@pytest.mark.parametrize("kind", ["plain", "encrypted"])
async def test_a_secret_from_elsewhere_comes_by_its_drop_in(
    lab: Lab,
    host: InstalledHost,
    tmp_path: Path,
    start_server: StartServer,
    start_router: StartRouter,
    kind: str,
) -> None:
    access = creds(tmp_path)
    lab.write("/srv/secrets/nats.creds", access.files["nats.creds"], 0o600)
    text = lab.path("/usr/share/ajhost/drop-ins/credentials.conf").read_text()
    if kind == "encrypted":
        sealed = "/etc/ajhost/nats.creds.enc"
        await lab.do("systemd-creds", "encrypt", "--name=nats.creds", "/srv/secrets/nats.creds", sealed)
        assert access.secrets[0] not in lab.path(sealed).read_text()
        lab.path("/srv/secrets/nats.creds").unlink()
        text = text.replace("\nLoadCredential=", "\n#").replace(
            "\n#LoadCredentialEncrypted=", "\nLoadCredentialEncrypted="
        )
    await drop_in(lab, "credentials", text)
    server = await start_server(config=access.server)
    host.configure(server.url, HANDLERS, {"nats": {"creds": "nats.creds"}})
    await host.start()
    router = await start_router(**access.router)
    assert (await router.request("environment")).json()["credentials"] == ["nats.creds"]


@pytest.mark.parametrize("way", sweep(WAYS, "password", "nkey"))
async def test_a_secret_that_others_can_read_is_refused(
    lab: Lab, host: InstalledHost, nats_server: NatsServer, tmp_path: Path, way: str
) -> None:
    access = WAYS[way](tmp_path)
    # a directory that systemd has no hand in
    for name, text in access.files.items():
        lab.write(f"/etc/ajhost/open/{name}", text, 0o644)
    sections = {
        section: {key: str(value).replace("credentials/", "open/") for key, value in values.items()}
        for section, values in access.sections.items()
    }
    host.configure(nats_server.url, HANDLERS, sections)
    assert (await lab.run("systemctl", "start", "ajhost")).status != 0
    assert (await lab.show("ExecMainStatus"), await lab.show("NRestarts")) == ("78", "0")
    secret = f"/etc/ajhost/open/{next(name for name in access.files if name not in PUBLIC)}"
    said = await lab.log()
    assert f"{secret} with mode 0644, open to its group or to others" in said
    assert f"chmod 600 {secret}" in said
    assert not [word for word in access.secrets if word in said]
    await lab.do("sh", "-c", f"chown ajhost /etc/ajhost/open/*; chmod 600 {secret}")
    assert (await lab.run("ajhost", "check", user="ajhost")).status == 0
