"""Every recipe of `docs/cookbook.md` runs, with the real libraries: its code and its tests as they stand there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.doc_page import run_tests

PAGE = Path(__file__).parents[2] / "docs" / "cookbook.md"
BLOCKS = dict(re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE.read_text(), re.DOTALL))
TESTS = sorted(name for name in BLOCKS if name.startswith("test_"))


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The address of a PostgreSQL of the session's own, by Debian's package; skipped where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        pytest.skip("Debian's package postgresql is not installed")
    binaries = found[-1].parent
    # not in pytest's own directory, which no other user may enter
    directory = Path(tempfile.mkdtemp(prefix="ajhost-postgresql-"))
    as_user: list[str] = []
    if os.geteuid() == 0:  # it refuses to run as root
        as_user = ["runuser", "-u", "postgres", "--"]
        shutil.chown(directory, "postgres")
    data = directory / "data"
    initdb = [
        *as_user,
        str(binaries / "initdb"),
        "-D",
        str(data),
        "-A",
        "trust",
        "-U",
        "postgres",
        "--no-sync",
    ]
    subprocess.run(initdb, check=True, capture_output=True, cwd="/", timeout=60)
    control = [*as_user, str(binaries / "pg_ctl"), "-D", str(data), "-w", "-s"]
    options = f"-c listen_addresses='' -c unix_socket_directories={directory} -c fsync=off"
    start = [*control, "-o", options, "-l", str(directory / "log"), "start"]
    subprocess.run(start, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/", timeout=60)
    try:
        yield f"host={directory} user=postgres dbname=postgres"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=True, cwd="/", timeout=60)
        shutil.rmtree(directory)


def test_every_recipe_has_a_test() -> None:
    assert sorted(f"test_{name}" for name in BLOCKS if not name.startswith("test_")) == TESTS
    assert len(TESTS) == PAGE.read_text().count("\n## ")


@pytest.mark.parametrize("name", TESTS)
def test_a_recipe_works_as_it_is_written(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    code = BLOCKS[name.removeprefix("test_")]
    (tmp_path / name.removeprefix("test_")).write_text(code)
    (tmp_path / name).write_text(BLOCKS[name])
    if "postgresql" in BLOCKS[name]:
        address = request.getfixturevalue("postgresql")
        fixture = f"import pytest\n@pytest.fixture\ndef postgresql(): return {address!r}\n"
        (tmp_path / "conftest.py").write_text(fixture)
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    run_tests(tmp_path, "-p", "no:asyncio")
