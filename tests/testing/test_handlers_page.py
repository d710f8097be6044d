"""The code of `docs/handlers.md`, as it stands: a handler, and its tests."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import ajhost
from tests.support.doc_page import BARE

PAGE = Path(__file__).parents[2] / "docs" / "handlers.md"


def test_its_handler_passes_its_tests(tmp_path: Path) -> None:
    handler, tests, hosts = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "mail.py").write_text(handler)
    (tmp_path / "test_mail.py").write_text(f"from shop.mail import Mail, send\n{tests}")
    (tmp_path / "test_hosts.py").write_text(hosts)
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\npythonpath = .\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *BARE],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(ajhost.__path__[0]).parent)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 passed" in done.stdout
