"""Secrets: the service has them, and nobody sees them."""

from __future__ import annotations

from pathlib import Path

from tests.support.nats import NatsServer
from tests.support.router import Router
from tests.systemd.lab import InstalledHost, Lab

SECRET = "correct-horse-battery-staple"
AUTHORIZATION = f'authorization {{ users: [{{ user: host, password: "{SECRET}" }}] }}'


async def test_a_password_in_a_credential_reaches_nats_and_no_eye(
    lab: Lab, host: InstalledHost, tmp_path: Path
) -> None:
    async with NatsServer(tmp_path, config=AUTHORIZATION) as server:
        lab.write("/etc/ajhost/credentials/password", SECRET + "\n", 0o600)
        host.configure(
            server.url,
            {"environment": "prints:environment"},
            {"nats": {"user": "host", "password_file": "credentials/password"}, "log": {"level": "debug"}},
        )
        try:
            await host.start()
            async with Router(server.url, user="host", password=SECRET) as router:
                seen = (await router.request("environment")).json()
            assert SECRET not in str(seen["environment"])
            assert seen["credentials"] == ["credentials_password"]
            assert (await lab.run("systemctl", "reload", "ajhost")).status == 0
            for pid in await lab.processes():
                for file in ("cmdline", "environ"):
                    assert SECRET not in await lab.do("cat", f"/proc/{pid}/{file}")
            for command in (
                ("systemctl", "show", "ajhost"),
                ("systemctl", "status", "ajhost"),
                ("ajhost", "status", "--json"),
                ("ajhost", "check"),
                ("journalctl", "-u", "ajhost", "-o", "verbose", "--all"),
            ):
                result = await lab.run(*command)
                assert SECRET not in result.stdout + result.stderr, command
            for path in lab.path("/run/ajhost").rglob("*"):
                assert path.is_socket() or path.is_dir() or SECRET.encode() not in path.read_bytes(), path
            assert (
                await lab.run("cat", "/run/credentials/ajhost.service/credentials_password", user="nobody")
            ).status
        finally:
            lab.path("/etc/ajhost/credentials/password").unlink()


async def test_a_secret_that_others_can_read_is_refused(
    lab: Lab, host: InstalledHost, nats_server: NatsServer
) -> None:
    lab.write("/etc/ajhost/open-secret", SECRET, 0o644)
    host.configure(
        nats_server.url,
        {"environment": "prints:environment"},
        {"nats": {"user": "host", "password_file": "open-secret"}},
    )
    try:
        checked = await lab.run("ajhost", "check")
        assert checked.status == 78
        assert "open-secret" in checked.stdout + checked.stderr
        assert SECRET not in checked.stdout + checked.stderr
    finally:
        lab.path("/etc/ajhost/open-secret").unlink()
