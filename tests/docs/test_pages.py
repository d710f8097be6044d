"""The pages of the docs: links that lead somewhere, and an API reference of the docstrings."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_and_a_heading_of_it(page: Path) -> None:
    wrong = []
    for link in _LINK.findall(page.read_text()):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            wrong.append(link)
    assert wrong == []


def test_the_api_reference_is_made_of_the_docstrings(tmp_path: Path) -> None:
    done = subprocess.run(
        [ROOT / "scripts" / "api-docs", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    handlers, testing = ((tmp_path / name).read_text() for name in ("ajhost.html", "ajhost/testing.html"))
    for text in ("remaining", "TerminateTask", "InvalidPayload", "the seconds until this attempt must end"):
        assert text in handlers
    for text in ("make_task", "run_sync", "The outcome of an attempt, as the router would store it"):
        assert text in testing
    pages = {path: path.read_text() for path in tmp_path.rglob("*.html")}
    assert {path.name for path in pages} == {
        *("index.html", "ajhost.html", "testing.html", "host.html", "pytest_plugin.html")
    }
    links = {(page, link) for page, text in pages.items() for link in re.findall(r'href="([^"]+)"', text)}
    for page, link in links:
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if "://" not in link and link != "${url}":  # a template of the search
            assert f'id="{anchor}"' in pages[target] or not anchor, (page.name, link)
