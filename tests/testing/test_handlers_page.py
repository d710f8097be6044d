"""The code of `docs/handlers.md`, as it stands: a handler, and its tests."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.doc_page import run_tests

PAGE = Path(__file__).parents[2] / "docs" / "handlers.md"


def test_its_handler_passes_its_tests(tmp_path: Path) -> None:
    handler, tests, hosts = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "mail.py").write_text(handler)
    (tmp_path / "test_mail.py").write_text(f"from shop.mail import Mail, send\n{tests}")
    (tmp_path / "test_hosts.py").write_text(hosts)
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\npythonpath = .\n")
    assert "5 passed" in run_tests(tmp_path)
