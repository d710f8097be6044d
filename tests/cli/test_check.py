"""`ajhost check`: every problem at once, and the handlers imported in a process of their own."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.support.program import CommandResult, run

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "daemon")}

APP = """
import os
from pathlib import Path

Path(__file__).with_name("imported-by").write_text(str(os.getpid()))
print("printed at import")

async def send(task):
    return b""

def report(task):
    return b""

def two(mail: dict, config: dict):
    return b""
"""


def write(directory: Path, text: str, app: str = APP) -> Path:
    (directory / "app.py").write_text(app)
    (directory / "ajhost.toml").write_text(f'[python]\npath = ["."]\nimport_timeout = 20\n{text}')
    (directory / "ajhost.toml").chmod(0o600)  # some have a password
    return directory / "ajhost.toml"


async def check(config: Path, *arguments: str) -> CommandResult:
    return await run(sys.executable, "-m", "ajhost", "check", "-c", config, *arguments, env=ENVIRONMENT)


async def test_success_says_what_was_found(tmp_path: Path) -> None:
    config = write(
        tmp_path,
        '[handlers."email:new"]\ntarget = "app:send"\ntimeout = 30\n[handlers.""]\ntarget = "app:report"\n',
    )
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "20.conf").write_text("[workers]\ncount = 1\n")
    result = await check(config)
    assert result.status == 0, result
    assert f"{tmp_path}/conf.d/20.conf: warning: it is not read" in result.stderr
    first, _, *table = result.stdout.splitlines()[-5:]
    assert first == f"{config}: good, 2 handlers"
    assert [line.split(maxsplit=3) for line in table] == [
        ["ROUTE", "TARGET", "RUNS", "TIMEOUT"],
        ["email:new", "app:send", "async", "30 s"],
        ['""', "app:report", "thread", "the task's deadline"],
    ]


async def test_handlers_are_imported_in_a_process_that_is_gone_afterwards(tmp_path: Path) -> None:
    config = write(tmp_path, '[handlers.x]\ntarget = "app:send"\n')
    assert (await check(config)).status == 0
    pid = int((tmp_path / "imported-by").read_text())
    assert not Path(f"/proc/{pid}").exists()


async def test_every_problem_of_the_handlers_is_told_with_file_and_route(tmp_path: Path) -> None:
    config = write(
        tmp_path,
        '[handlers.a]\ntarget = "app:sned"\n[handlers.b]\ntarget = "none:f"\n[handlers.c]\ntarget = "app:send"\n'
        '[handlers.d]\ntarget = "app:two"\n',
    )
    result = await check(config)
    assert (result.status, result.stdout.replace("printed at import\n", "")) == (78, "")
    assert f'{config}: handlers."a": ' in result.stderr
    assert "did you mean send?" in result.stderr
    assert f'{config}: handlers."b": there is no module' in result.stderr
    assert 'handlers."c"' not in result.stderr
    assert f'{config}: handlers."d": app:two(mail: dict, config: dict) cannot be called' in result.stderr
    assert "two(mail: dict, task: Task)" in result.stderr


async def test_a_module_that_hangs_or_exits_at_import_is_told_in_time(tmp_path: Path) -> None:
    for app in ("import time; time.sleep(3600)", "import os; os._exit(0)", "raise SystemExit(0)"):
        config = write(tmp_path, '[handlers.x]\ntarget = "app:send"\n', app)
        config.write_text(config.read_text().replace("= 20", "= 1"))
        result = await check(config)
        assert result.status == 78, (app, result)
        assert "import" in result.stderr
        assert "Traceback" not in result.stderr


async def test_every_problem_of_the_settings_is_told_and_nothing_is_imported(tmp_path: Path) -> None:
    config = write(tmp_path, '[workers]\ncuont = 1\nbacklog = -1\n[handlers.x]\ntarget = "app:send"\n')
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "1.toml").write_text("[log]\nlevel = 'loud'")
    result = await check(config)
    assert (result.status, result.stdout) == (78, "")
    lines = result.stderr.splitlines()
    assert len(lines) == 3
    assert any(line.startswith(f"{config}: workers.cuont: found an unknown key, allowed: ") for line in lines)
    assert any(line.startswith(f"{tmp_path}/conf.d/1.toml: log.level: ") for line in lines)
    assert not (tmp_path / "imported-by").exists()


async def test_shown_settings_are_json_with_defaults_and_without_secrets(tmp_path: Path) -> None:
    config = write(
        tmp_path,
        '[nats]\nservers = ["nats://u:hunter2@h"]\ntoken = "hunter2"\n[handlers.x]\ntarget = "app:send"\n',
        APP.replace('print("printed at import")', ""),
    )
    result = await check(config, "--show")
    assert result.status == 0, result
    shown = json.loads(result.stdout)
    assert shown["workers"]["concurrency"] == 16
    assert shown["nats"]["token"] == "***"
    assert "hunter2" not in result.stdout + result.stderr


async def test_run_on_the_installed_configuration_exits_78_and_says_what_is_needed() -> None:
    file = ROOT / "etc" / "ajhost.toml"
    result = await run(sys.executable, "-m", "ajhost", "run", "-c", file, env=ENVIRONMENT)
    assert (result.status, result.stdout) == (78, "")
    assert result.stderr == (
        f'{file}: handlers: found nothing, allowed: at least one table [handlers."<route>"] '
        'with target = "module:function"\n'
    )


async def test_the_worker_of_a_check_ends_as_at_a_stop_and_is_not_waited_for(tmp_path: Path) -> None:
    ending = APP + "\nimport atexit\natexit.register(Path(__file__).with_name('ended').touch)\n"
    config = write(tmp_path, '[handlers.x]\ntarget = "app:send"\n', ending)
    assert (await check(config)).status == 0
    assert (tmp_path / "ended").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a network of its own")
async def test_a_loopback_that_is_down_is_told(tmp_path: Path) -> None:
    config = write(tmp_path, '[handlers.x]\ntarget = "app:send"\n')
    command = ("unshare", "--net", sys.executable, "-m", "ajhost", "check", "-c", config)
    result = await run(*command, env=ENVIRONMENT)
    assert result.status == 78
    assert "cannot rehearse: 127.0.0.1 cannot be reached: " in result.stderr
    assert "the loopback interface is down (ip link set lo up)" in result.stderr
