"""Renders docs/diagrams/*.mmd with Mermaid in a headless Chromium; an SVG names the source that it was made of."""

from __future__ import annotations

import hashlib
import html
import re
import subprocess
import sys
import tempfile
from pathlib import Path

DIRECTORY = Path(__file__).parents[2] / "docs" / "diagrams"
_SVG = re.compile(r"<svg.*</svg>", re.DOTALL)
_VOID = re.compile(r"<(br|hr|img)([^>]*?)/?>")
_PAGE = """<!doctype html><meta charset="utf-8"><script>{library}</script><body><pre class="mermaid">{source}</pre>
<script>mermaid.initialize({{startOnLoad: true, theme: "neutral", deterministicIds: true}})</script>"""


class RenderFailed(Exception):
    """Mermaid did not understand a source, or Chromium did not run; the text has their words."""


def source_mark(source: str) -> str:
    """The comment in an SVG that names its source."""
    return f"<!-- made by scripts/diagrams from a source with SHA-256 {hashlib.sha256(source.encode()).hexdigest()} -->"


def is_current(source: Path) -> bool:
    """Whether the SVG beside a source was made of just that."""
    picture = source.with_suffix(".svg")
    return picture.exists() and source_mark(source.read_text()) in picture.read_text()


def render(source: str, library: str) -> str:
    """The SVG of a Mermaid source. `library`: the text of `mermaid.min.js`.

    :raises RenderFailed: it is no diagram.
    """
    with tempfile.TemporaryDirectory() as directory:
        page = Path(directory) / "page.html"
        page.write_text(_PAGE.format(library=library, source=html.escape(source)))
        done = subprocess.run(
            [
                *(
                    "chromium",
                    "--headless",
                    "--no-sandbox",
                    "--disable-gpu",
                    f"--user-data-dir={directory}/profile",
                ),
                *("--virtual-time-budget=20000", "--dump-dom", page.as_uri()),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    body = done.stdout.rpartition("</script>")[0].rpartition("<body>")[2]
    found = _SVG.search(body)
    if found is None or "Syntax error in text" in found[0]:
        raise RenderFailed(re.sub(r"<[^>]+>", " ", body)[-1000:] or done.stderr[-1000:])
    # a standalone SVG is XML: void elements of HTML labels are closed, and their entity has a number
    return _VOID.sub(r"<\1\2/>", found[0]).replace("&nbsp;", "&#160;")


def main() -> None:
    """Renders every source whose picture is missing or was made of another."""
    library = Path(sys.argv[1]).read_text()
    for source in sorted(DIRECTORY.glob("*.mmd")):
        if is_current(source):
            continue
        text = source.read_text()
        try:
            picture = render(text, library)
        except RenderFailed as error:
            sys.exit(f"{source}: {error}")
        source.with_suffix(".svg").write_text(f"{source_mark(text)}\n{picture}\n")
        print(source.with_suffix(".svg"))


if __name__ == "__main__":
    main()
