"""The pages of docs/ that are made of the code's tables. `scripts/doc-tables` writes them, a test compares them."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path

from ajhost.core import timings
from ajhost.protocol.reasons import FailureReason

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "daemon" / "ajhost"

_TIMINGS = """# Every time constant

Made of `daemon/ajhost/core/timings.py` by `scripts/doc-tables`: change it there. Times that an operator sets are in
ajhost.toml(5). `tests/unit/test_timings.py` asserts the inequalities between these.
"""


def table(*rows: tuple[str, ...]) -> str:
    """A Markdown table; the first row is its head."""
    head, *rest = ("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
    return "\n".join([head, "|" + "---|" * len(rows[0]), *rest]) + "\n"


def constants(source: str) -> dict[str, list[tuple[str, str, str]]]:
    """Sections (`# -- TITLE ---`) of a module: name, value as text, and docstring of each constant under them."""
    lines, tree = source.splitlines(), ast.parse(source)
    titles = {
        number: found[1]
        for number, line in enumerate(lines, 1)
        if (found := re.match(r"# -- (.*?) -+$", line))
    }
    sections: dict[str, list[tuple[str, str, str]]] = {title: [] for title in titles.values()}
    for node, following in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            above = [title for number, title in titles.items() if number < node.lineno]
            meaning = ast.unparse(following) if isinstance(following, ast.Expr) else ""
            if above:
                text = " ".join(ast.literal_eval(meaning).split()) if meaning else ""
                sections[above[-1]].append((node.targets[0].id, ast.unparse(node.value), text))
    return sections


def timings_page() -> str:
    """`docs/timings.md`."""
    parts = [_TIMINGS]
    for title, found in constants((PACKAGE / "core" / "timings.py").read_text()).items():
        rows = [(f"`{name}`", _seconds(getattr(timings, name)), meaning) for name, _, meaning in found]
        parts.append(f"## {title}\n\n" + table(("name", "seconds", "meaning"), *rows))
    return "\n".join(parts)


def _seconds(value: float | tuple[float, ...]) -> str:
    return ", ".join(f"{v:g}" for v in value) if isinstance(value, tuple) else f"{value:g}"


def meanings(source: str, name: str) -> dict[str, str]:
    """What the `#:` comments above the members of an enum say about them."""
    lines = source.splitlines()
    (found,) = (
        node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == name
    )
    result = {}
    for node in found.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            first = node.lineno - 1
            while lines[first - 1].lstrip().startswith("#:"):
                first -= 1
            words = (line.strip().removeprefix("#:").strip() for line in lines[first : node.lineno - 1])
            result[node.targets[0].id] = " ".join(words)
    return result


def reasons_table() -> str:
    """The stable words of error texts, for `docs/operate.md`."""
    said = meanings((PACKAGE / "protocol" / "reasons.py").read_text(), "FailureReason")
    rows = [(f"`{reason.value}:`", said[reason.name]) for reason in FailureReason]
    return table(("word", "what it means"), *rows)


PAGES: dict[str, Callable[[], str]] = {"timings.md": timings_page}
"""Pages under docs/ that are made whole."""

TABLES: dict[tuple[str, str], Callable[[], str]] = {("operate.md", "reasons"): reasons_table}
"""Tables in pages that are written by hand, between `<!-- table NAME -->` and `<!-- end -->`."""


def with_table(page: str, name: str, made: str) -> str:
    """The page with its table `name` made anew.

    :raises LookupError: it has no place for that.
    """
    begin, end = f"<!-- table {name} -->\n", "<!-- end -->"
    before, found, rest = page.partition(begin)
    if not found or end not in rest:
        raise LookupError(f"no place for the table {name}")
    return before + begin + made + end + rest.partition(end)[2]


def main() -> None:
    """Writes every page and every table."""
    for name, make in PAGES.items():
        (ROOT / "docs" / name).write_text(make())
    for (name, title), make in TABLES.items():
        page = ROOT / "docs" / name
        page.write_text(with_table(page.read_text(), title, make()))


if __name__ == "__main__":
    main()
