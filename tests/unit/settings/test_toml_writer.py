"""The settings of a development host, written as TOML and loaded again."""

from __future__ import annotations

from pathlib import Path

from ajhost.settings.toml_writer import development_sections, toml_text
from tests.unit.settings.test_load import load_text

SETTINGS = """
[python]
path = ["."]
preload = false
allow_open = ["/srv/words.db"]
middleware = ["app:traced"]

[workers]
count = 3
max_memory = "512M"

[log]
level = "debug"
tasks = "all"
levels = { "sqlalchemy.engine" = "info", botocore = "error" }
limits = { "handler error" = 5 }

[handlers."email:new"]
target = "app:send"
timeout = 1.5
concurrency = 2

[handlers.""]
target = "app:rest"
unwrap = true
"""


def test_a_development_host_gets_its_handlers_workers_python_and_log_from_the_file(directory: Path) -> None:
    settings = load_text(directory, SETTINGS)
    again = load_text(directory, toml_text(development_sections(settings)))
    for section in ("handlers", "workers", "python", "log"):
        assert getattr(again, section) == getattr(settings, section)
