"""Interpreters other than the one that runs ajhost."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ajhost.adapters.linux import processes
from ajhost.roles.supervisor.template_process import rehearse
from tests.roles.template.driver import ENTRY, TIMEOUT, Fork, Start, TemplateDriver


async def test_a_virtual_environment_without_ajhost_serves_its_handlers_and_keeps_its_packages_first(
    driver: TemplateDriver, start: Start, fork: Fork, venv: Path
) -> None:
    driver.module("acme", "import only_here, pydantic\npydantic.HERE\nsend = only_here.send\n")
    template = await start(driver.plan(interpreter=str(venv / "bin/python")))
    report = await (await fork(template)).report()
    assert report["called"] == ["the venv"]
    assert Path(report["ajhost"]) == Path(processes.__file__).parents[2] / "__init__.py"
    path = report["path"]
    assert path[0] == str(driver.app)
    (site,) = venv.glob("lib/python3.*/site-packages")
    import orjson

    assert path.index(str(site)) < path.index(str(Path(orjson.__file__).parents[1])) == len(path) - 1


async def test_a_generation_keeps_its_release_when_a_symlink_moves_on(
    driver: TemplateDriver, start: Start, fork: Fork, venv: Path, tmp_path: Path
) -> None:
    for release in ("one", "two"):
        driver.module(f"../{release}/acme", f"def send(task):\n    import late\n    return {release!r}, late.NAME\n")
        driver.module(f"../{release}/late", f"NAME = {release!r}\n")
        (tmp_path / release / "venv").symlink_to(venv)
    current = tmp_path / "current"
    current.symlink_to(tmp_path / "one")
    template = await start(driver.plan(path=current, interpreter=str(current / "venv/bin/python")))
    current.unlink()
    current.symlink_to(tmp_path / "two")
    report = await (await fork(template)).report()
    assert report["called"] == [["one", "one"]]
    assert not [entry for entry in report["path"] if entry.startswith(str(current))]


async def test_the_systems_own_python_of_the_same_version_serves_too(
    driver: TemplateDriver, start: Start, fork: Fork
) -> None:
    system = Path("/usr/bin/python3")
    if not system.exists() or _version(system) != list(sys.version_info[:2]):
        pytest.skip(f"{system} is not Python {sys.version_info[0]}.{sys.version_info[1]}")
    report = await (await fork(await start(driver.plan("acme:sync", interpreter=str(system))))).report()
    assert report["called"] == [42]


def _version(interpreter: Path) -> object:
    code = "import json, sys; print(json.dumps(sys.version_info[:2]))"
    return json.loads(subprocess.check_output([interpreter, "-c", code], timeout=30))


def _another_python(wanted: Callable[[tuple[int, int]], bool]) -> Path:
    pattern = ".pyenv/versions/*/bin/python3"
    for found in sorted(Path.home().glob(pattern)):
        version = found.parents[1].name.split(".")
        if len(version) >= 2 and wanted((int(version[0]), int(version[1]))):
            return found
    pytest.skip("there is no such Python on this machine")


async def test_a_python_of_another_version_is_told_what_to_do(driver: TemplateDriver) -> None:
    other = _another_python(lambda version: version >= (3, 11) and version != sys.version_info[:2])
    (problem,) = await driver.problems(driver.plan(interpreter=str(other)))
    assert f"python.interpreter: {other} is Python 3." in problem
    assert f"Install ajhost in that environment: {other} -m pip install ajhost==" in problem
    assert "\n" not in problem


async def test_a_python_that_is_too_old_is_told_so(driver: TemplateDriver) -> None:
    old = _another_python(lambda version: (3, 6) <= version < (3, 11))
    (problem,) = await driver.problems(driver.plan(interpreter=str(old)))
    assert f"{old} is Python 3." in problem
    assert problem.endswith("ajhost needs Python 3.11 or later")


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda path: None, "No such file or directory"),
        (lambda path: path.write_text("no program"), "Permission denied"),
        (lambda path: (path.write_text("no program"), path.chmod(0o755)), "Exec format error"),
        (lambda path: path.symlink_to("/bin/false"), "exit status 1"),
        (lambda path: path.mkdir(), "Permission denied"),
    ],
)
async def test_what_is_no_interpreter_is_refused_with_the_reason(
    driver: TemplateDriver, tmp_path: Path, make: Callable[[Path], object], part: str
) -> None:
    interpreter = tmp_path / "python"
    make(interpreter)
    (problem,) = await driver.problems(driver.plan(interpreter=str(interpreter)))
    assert part in problem
    assert str(interpreter) in problem or part == "exit status 1"


TYPED = """
import pydantic

class Mail(pydantic.BaseModel):
    to: str

def send(mail: Mail, task): ...
"""


async def test_a_typed_payload_is_read_by_the_hosts_pydantic_where_the_environment_has_none(
    driver: TemplateDriver, venv: Path
) -> None:
    driver.module("typed", TYPED)
    for fake in venv.rglob("pydantic.py"):
        fake.unlink()
    spec = driver.plan("typed:send", interpreter=str(venv / "bin/python"))
    (found,), _ = await rehearse(spec.python, spec.handlers, TIMEOUT, entry=ENTRY, schemas=True)
    assert found.payload == "Mail"
    assert json.loads(found.schema)["required"] == ["to"]


async def test_a_typed_payload_beside_a_pydantic_that_is_too_old_is_told(driver: TemplateDriver, venv: Path) -> None:
    driver.module("typed", "def send(mail: dict[str, int], task): ...\n")
    for fake in venv.rglob("pydantic.py"):
        fake.write_text("VERSION = '1.10.2'\nclass TypeAdapter: ...\n")
    (problem,) = await driver.problems(driver.plan("typed:send", interpreter=str(venv / "bin/python")))
    assert "a payload of type dict[str, int] needs pydantic 2; this is 1.10.2" in problem
