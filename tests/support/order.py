"""In which order the tests run, and which stay together when several processes run them."""

from __future__ import annotations

from pathlib import Path

LONGEST_FIRST = (
    "systemd",
    "router",
    "testing",
    "cli",
    "host",
    "connection",
    "page",
    "metrics",
    "docs",
    "roles",
    "adapters",
)
"""Folders whose tests wait longest: begun first, they end with the others. What is not named here takes no time."""

TOGETHER = {
    # a host of the module
    "tests/host/test_answers.py": "answers",
    "tests/host/test_payloads.py": "payloads",
    "tests/host/test_runbook.py": "runbook",
    "tests/host/test_top.py": "top",
    "tests/testing/test_agreement.py": "agreement",
    "tests/metrics/test_exposition.py": "exposition",
    # a browser
    "tests/page/test_page.py": "page",
    # a machine, which takes seconds to boot and to install the package on
    "tests/systemd/test_restarts.py": "first machine",
    "tests/systemd/test_service.py": "first machine",
    "tests/systemd/test_check.py": "second machine",
    "tests/systemd/test_credentials.py": "second machine",
    "tests/systemd/test_hardening.py": "third machine",
    "tests/systemd/test_http.py": "third machine",
    "tests/systemd/test_instances.py": "third machine",
    "tests/systemd/test_journal.py": "third machine",
    "tests/systemd/test_memory.py": "third machine",
    "tests/systemd/test_notify.py": "third machine",
    "tests/systemd/test_package.py": "machine without a network",
    "tests/systemd/test_container.py": "container",
}
"""Modules whose tests share something that is made once: one process runs them all."""


def place(path: Path) -> int:
    """Where the tests of a file, by its path in `tests`, stand in the order."""
    folder = path.parts[0]
    return LONGEST_FIRST.index(folder) if folder in LONGEST_FIRST else len(LONGEST_FIRST)
