"""The image of packaging/container: built as docs/containers.md says, and run with its options, by Podman and runc."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.support.nats import NatsServer

ROOT = Path(__file__).parents[2]
BASE = "localhost/base:latest"
NEEDED = {"podman": "podman", "runc": "runc", "conmon": "conmon", "mmdebstrap": "mmdebstrap"}
REGISTRIES = ("/etc/ssl/certs", "/etc/pip.conf", "/etc/apt/apt.conf.d")
"""How this machine reaches the registries that the build asks."""
HANDLERS = """
import os, time

def send(task):
    return {"uid": os.getuid(), "pid": os.getpid()}

def slow(task):
    time.sleep(2)
    return {"done": True}

def hog(task):
    kept = []
    while True:
        kept.append(bytearray(b"x" * 10_000_000))
"""
pytestmark = pytest.mark.long


class Podman:
    """Podman with its storage in a directory of the test's."""

    def __init__(self, storage: str) -> None:
        self._place = storage
        self._command = (
            "podman",
            "--root",
            f"{storage}/root",
            "--runroot",
            f"{storage}/run",
            "--runtime",
            "runc",
        )

    def run(self, *arguments: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        command = [*self._command, "--cgroup-manager", "cgroupfs", *arguments]
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            cwd=ROOT if arguments[0] == "build" else self._place,  # conmon leaves a file `oom` there
            stdin=subprocess.DEVNULL,
        )

    def program(self, path: Path) -> Path:
        """Writes a program that is Podman with this storage."""
        path.write_text(f'#!/bin/sh\nexec {" ".join(self._command)} --cgroup-manager cgroupfs "$@"\n')
        path.chmod(0o755)
        return path

    def do(self, *arguments: str, timeout: float = 60.0) -> str:
        done = self.run(*arguments, timeout=timeout)
        assert done.returncode == 0, done
        return done.stdout


@pytest.fixture(scope="module")
def podman() -> Iterator[Podman]:
    """With the image `ajhost` in it, on a base of Debian's packages."""
    if os.geteuid() != 0:
        pytest.skip("containers are made by root only")
    if missing := [package for program, package in NEEDED.items() if shutil.which(program) is None]:
        pytest.skip(f"an image is built and run with Debian's packages {', '.join(missing)}")
    with tempfile.TemporaryDirectory() as place:
        podman = Podman(place)
        source = [path for path in ("/etc/apt/sources.list.d/debian.sources",) if Path(path).exists()]
        packages = "--include=python3,python3-venv,python3-dev,python-is-python3,ca-certificates"
        subprocess.run(
            [
                "mmdebstrap",
                "--quiet",
                "--variant=minbase",
                packages,
                "bookworm",
                f"{place}/base.tar",
                *source,
            ],
            check=True,
            stdin=subprocess.DEVNULL,
        )
        podman.do("import", "--quiet", f"{place}/base.tar", BASE, timeout=120)
        ways = [f"--volume={path}:{path}:ro" for path in REGISTRIES if Path(path).exists()]
        file = ["--file", "packaging/container/Dockerfile", "--build-arg", f"BASE={BASE}"]
        podman.do(
            *("build", "--format", "docker", "--network", "host", *ways, *file, "--tag", "ajhost", "."),
            timeout=600,
        )
        try:
            yield podman
        finally:
            podman.run("rm", "--all", "--force", "--time", "0")
            podman.run("unmount", "--all", "--force")


class Container:
    """A host in a container, with the options of the page and some of the test's."""

    def __init__(self, podman: Podman, name: str, app: Path, url: str, *options: str) -> None:
        self._podman, self._name = podman, name
        targets = {name: {"target": f"mail:{name}"} for name in ("send", "slow", "hog")}
        podman.do(
            *("run", "--detach", "--name", name, *page_options(), *options, "--network", "host"),
            *("--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096"),
            *(
                "-e",
                f"AJHOST_NATS__SERVERS={json.dumps([url])}",
                "-e",
                f"AJHOST_HANDLERS={json.dumps(targets)}",
            ),
            *("-v", f"{app}:/app:ro", "ajhost"),
        )

    def ajhost(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self._podman.run("exec", self._name, "ajhost", *arguments)

    def until_healthy(self) -> None:
        """Returns when the image's health check succeeds."""
        end = time.monotonic() + 60
        while self._podman.run("healthcheck", "run", self._name).returncode != 0:
            assert time.monotonic() < end, self._podman.run("logs", self._name)
            time.sleep(0.2)

    def workers(self) -> dict[int, int]:
        """Slot to pid."""
        status: dict[str, Any] = json.loads(self.ajhost("status", "--json").stdout)
        return {worker["slot"]: worker["pid"] for worker in status["workers"] if worker["state"] == "serving"}

    def signal(self, name: str, pid: int) -> None:
        self._podman.do("exec", self._name, "python", "-c", f"import os, signal; os.kill({pid}, signal.{name})")

    def stop(self) -> int:
        """SIGTERM, and SIGKILL after the page's stop timeout; the exit status."""
        self._podman.do("stop", self._name)
        return int(self._podman.do("inspect", self._name, "--format", "{{.State.ExitCode}}"))


def page_options() -> list[str]:
    """The options of `docker run` on the page, but those that name settings, files and ports."""
    text = (ROOT / "docs" / "containers.md").read_text()
    command = re.search(r"docker run (.*?)\n\n", text, re.DOTALL)
    assert command is not None
    words = command[1].replace("\\\n", " ").split()
    return words[: words.index("-e")]


@pytest.fixture(autouse=True)
def alone(podman: Podman) -> Iterator[None]:
    """No container of a test is left: all listen on one port of this machine."""
    yield
    podman.run("rm", "--all", "--force", "--time", "0")


@pytest.fixture
def app(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    (tmp_path / "mail.py").write_text(HANDLERS)
    return tmp_path


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("-u", "12345:0"),
        ("--cpus", "0.5"),
        ("--memory", "256m", "--memory-swap", "256m"),
        ("--pids-limit", "40"),
    ],
    ids=lambda options: " ".join(options) or "as the page says",
)
def test_it_serves_reloads_and_stops_in_order(
    podman: Podman, app: Path, nats_server: NatsServer, options: tuple[str, ...]
) -> None:
    container = Container(podman, "host", app, nats_server.url, *options)
    container.until_healthy()
    assert len(container.workers()) == (1 if "--cpus" in options else min(2, os.cpu_count() or 1))
    answer = json.loads(container.ajhost("call", "send", "{}").stdout)
    assert answer["uid"] == (12345 if "-u" in options else 10001)
    assert container.ajhost("check").returncode == 0
    assert "generation 2 serves" in container.ajhost("reload").stdout
    killed = container.workers()[0]
    container.signal("SIGKILL", killed)
    container.until_healthy()
    while killed in container.workers().values():
        time.sleep(0.1)
    if "--memory" in options:
        assert "worker died: SIGKILL" in container.ajhost("call", "hog", "{}").stderr
        container.until_healthy()
    assert json.loads(container.ajhost("call", "slow", "{}").stdout) == {"done": True}
    assert container.stop() == 0


def test_the_compose_file_serves_beside_its_server(podman: Podman, tmp_path: Path) -> None:
    """By podman-compose (PyPI), with this machine's nats-server in the place of its image, and another port."""
    if (compose := shutil.which("podman-compose")) is None:
        pytest.skip("the compose file is run by podman-compose")
    shop = tmp_path / "shop"
    shutil.copytree(ROOT / "packaging" / "container", shop)
    file = shop / "compose.yaml"
    file.write_text(file.read_text().replace("127.0.0.1:9464:", "127.0.0.1::"))
    program = shutil.which("nats-server", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert program is not None
    shutil.copy(program, shop / "nats-server")
    (shop / "nats.Dockerfile").write_text('FROM scratch\nCOPY nats-server /\nENTRYPOINT ["/nats-server"]\n')
    image = "docker.io/library/nats:2.10"
    podman.do("build", "--file", str(shop / "nats.Dockerfile"), "--tag", image, str(shop))
    podman.do("tag", "ajhost", "shop_ajhost")
    wrapper = podman.program(tmp_path / "podman")
    (tmp_path / "containers.conf").write_text(
        '[containers]\ndefault_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]\n'
    )
    command = [compose, "--podman-path", str(wrapper), "--file", str(file)]
    environment = {**os.environ, "CONTAINERS_CONF": str(tmp_path / "containers.conf")}
    run = partial(subprocess.run, cwd=tmp_path, env=environment, check=True, timeout=60, stdin=subprocess.DEVNULL)
    try:
        run([*command, "up", "--detach", "--no-build"])
        host = "shop_ajhost_1"
        end = time.monotonic() + 60
        while podman.run("healthcheck", "run", host).returncode != 0:
            assert time.monotonic() < end, podman.run("logs", host)
            time.sleep(0.2)
        said = podman.do("exec", host, "ajhost", "call", "email:new", '{"to": "ada@example.net"}')
        assert said == "sent to ada@example.net"
        run([*command, "stop"])
        assert podman.do("inspect", host, "--format", "{{.State.ExitCode}}").strip() == "0"
    finally:
        run([*command, "down"])


def test_without_a_tmpfs_and_with_its_own_layer_writable_it_serves_too(
    podman: Podman, app: Path, nats_server: NatsServer
) -> None:
    container = Container(podman, "host", app, nats_server.url, "--read-only=false")
    container.until_healthy()
    assert container.stop() == 0
