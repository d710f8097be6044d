"""A real Prometheus for a test: Debian's, which `scripts/test` unpacks into the .venv, or the one on PATH."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from tests.support.nats import free_port

START_TIMEOUT = 60.0
_SCRAPE_EVERY = "100ms"


def tool(name: str) -> Path:
    """`prometheus` or `promtool`; skips the test where there is none."""
    bundled = Path(sys.prefix) / "prometheus" / "usr" / "bin" / name
    if bundled.exists():
        return bundled
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name}: neither {bundled} nor one on PATH")
    return Path(found)


def promtool(*arguments: str | Path, text: str = "") -> str:
    """Runs promtool and returns what it says. Fails with that when it finds something wrong."""
    done = subprocess.run(
        [tool("promtool"), *arguments], input=text, capture_output=True, text=True, timeout=60, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


class Prometheus:
    """One server that scrapes `targets` (HOST:PORT) all the time."""

    def __init__(self, directory: Path, targets: Sequence[str], rules: Sequence[Path] = ()) -> None:
        self._directory, self._targets, self._rules = directory, targets, rules
        self._listen = f"127.0.0.1:{free_port()}"
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        config = {
            "global": {"scrape_interval": _SCRAPE_EVERY, "evaluation_interval": _SCRAPE_EVERY},
            "rule_files": [str(path) for path in self._rules],
            "scrape_configs": [{"job_name": "ajhost", "static_configs": [{"targets": list(self._targets)}]}],
        }
        file = self._directory / "prometheus.yml"
        file.write_text(json.dumps(config))  # JSON is YAML
        with (self._directory / "prometheus.log").open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                tool("prometheus"),
                f"--config.file={file}",
                f"--storage.tsdb.path={self._directory / 'tsdb'}",
                f"--web.listen-address={self._listen}",
                stdout=log,
                stderr=log,
            )
        async with asyncio.timeout(START_TIMEOUT):
            while not await self._is_ready():  # noqa: ASYNC110  # asked from outside
                await asyncio.sleep(0.05)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        await asyncio.wait_for(self._process.wait(), 20)

    async def _is_ready(self) -> bool:
        assert self._process is not None
        if self._process.returncode is not None:
            raise AssertionError((self._directory / "prometheus.log").read_text())
        try:
            await asyncio.to_thread(self._get, "/-/ready")
        except OSError:
            return False
        return True

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://{self._listen}{path}", timeout=10) as response:
            body: bytes = response.read()
            return body

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples that an expression gives now: `[{"metric": {labels}, "value": [time, text]}]`."""
        path = "/api/v1/query?" + urllib.parse.urlencode({"query": expression})
        try:
            answer = json.loads(await asyncio.to_thread(self._get, path))
        except urllib.error.HTTPError as error:
            with error:
                raise AssertionError(f"{expression}: {error.read().decode()}") from None
        assert answer["status"] == "success", answer
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    async def until(self, expression: str, seconds: float = 30.0) -> list[dict[str, Any]]:
        """The first time that an expression gives any sample."""
        async with asyncio.timeout(seconds):
            while not (found := await self.query(expression)):  # noqa: ASYNC110  # asked from outside
                await asyncio.sleep(0.1)
            return found

    async def alerts(self) -> set[str]:
        """The names of alerts that fire."""
        found = json.loads(await asyncio.to_thread(self._get, "/api/v1/alerts"))["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in found if alert["state"] == "firing"}
