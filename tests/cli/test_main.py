"""The program `ajhost` as a whole: help, usage, and status and reload where nothing runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.support.program import CommandResult, run

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "daemon")}
COMMANDS = ("run", "check", "call", "status", "tasks", "reload")


async def ajhost(*arguments: str | Path) -> CommandResult:
    return await run(sys.executable, "-m", "ajhost", *arguments, env=ENVIRONMENT)


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
async def test_help_has_examples(command: tuple[str, ...]) -> None:
    result = await ajhost(*command, "--help")
    assert (result.status, result.stderr) == (0, "")
    example = " ".join(("ajhost", *command))
    assert example in result.stdout.partition("Examples:")[2]


async def test_help_loads_neither_the_validator_nor_the_nats_client() -> None:
    result = await run(
        *(sys.executable, "-X", "importtime", "-m", "ajhost", "--help"),
        env={**ENVIRONMENT, "PYTHONVERBOSE": ""},
    )
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in result.stderr.splitlines()}
    assert "click" in loaded
    assert not loaded & {"pydantic", "nats", "uvloop"}


async def test_the_version_is_the_packages() -> None:
    from ajhost import __version__

    result = await ajhost("--version")
    assert (result.status, result.stdout) == (0, f"ajhost {__version__}\n")


@pytest.mark.parametrize("arguments", [(), ("frobnicate",), ("status", "--yaml"), ("run", "more")])
async def test_wrong_usage_exits_2_and_says_how(arguments: tuple[str, ...]) -> None:
    result = await ajhost(*arguments)
    assert result.status == 2
    assert "Usage: ajhost" in result.stderr


@pytest.mark.parametrize("command", ["status", "reload"])
async def test_where_nothing_runs_status_and_reload_exit_3(tmp_path: Path, command: str) -> None:
    (tmp_path / "ajhost.toml").write_text(f'[runtime]\ndirectory = "{tmp_path}/run"\n')
    result = await ajhost(command, "-c", tmp_path / "ajhost.toml")
    assert (result.status, result.stdout) == (3, "")
    assert result.stderr == f"no ajhost runs on {tmp_path}/run\n"


async def test_without_a_configuration_a_reload_is_rejected_and_a_status_is_not_known(tmp_path: Path) -> None:
    gone = tmp_path / "gone.toml"
    reload = await ajhost("reload", "-c", gone)
    assert (reload.status, reload.stdout) == (1, "")
    assert str(gone) in reload.stderr
    status = await ajhost("status", "-c", gone)
    assert (status.status, status.stdout) == (78, "")
    assert str(gone) in status.stderr
