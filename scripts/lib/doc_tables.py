"""The pages of docs/ that are made of the code's tables. `scripts/doc-tables` writes them, a test compares them."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import click

from ajhost.cli.main import program
from ajhost.core import connection_table, fleet, recovery_rules, timings
from ajhost.core.backoff import BACKOFF
from ajhost.core.connection_table import LOCKS_OUT, REASON_TEXTS, TRANSITIONS, Close
from ajhost.ledger import layout, states
from ajhost.ledger.connection_status import ConnectionState, Reason
from ajhost.protocol.reasons import FailureReason
from ajhost.roles.worker import request

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "daemon" / "ajhost"

_TIMINGS = """# Every time constant

Made of `daemon/ajhost/core/timings.py` by `scripts/doc-tables`: change it there. Times that an operator sets are in
ajhost.toml(5). `tests/unit/core/test_timings.py` asserts the inequalities between these.
"""


def table(*rows: tuple[str, ...]) -> str:
    """A Markdown table; the first row is its head."""
    head, *rest = ("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
    return "\n".join([head, "|" + "---|" * len(rows[0]), *rest]) + "\n"


def constants(source: str) -> dict[str, list[tuple[str, str, str]]]:
    """Sections (`# -- TITLE ---`) of a module: name, value as text, and docstring of each constant under them."""
    lines, tree = source.splitlines(), ast.parse(source)
    titles = {number: found[1] for number, line in enumerate(lines, 1) if (found := re.match(r"# -- (.*?) -+$", line))}
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
    """What the `#:` comments above the members of an enum, or the docstrings below them, say about them."""
    lines = source.splitlines()
    (found,) = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == name)
    result = {}
    for node, following in zip(found.body, [*found.body[1:], None], strict=True):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            first = node.lineno - 1
            while lines[first - 1].lstrip().startswith("#:"):
                first -= 1
            words = (line.strip().removeprefix("#:").strip() for line in lines[first : node.lineno - 1])
            below = following.value if isinstance(following, ast.Expr) else None
            said = str(below.value) if isinstance(below, ast.Constant) else ""
            result[node.targets[0].id] = " ".join([*words, *said.split()])
    return result


def reasons_table() -> str:
    """The stable words of error texts, for `docs/operate.md`."""
    said = meanings((PACKAGE / "protocol" / "reasons.py").read_text(), "FailureReason")
    rows = [(f"`{reason.value}:`", said[reason.name]) for reason in FailureReason]
    return table(("word", "what it means"), *rows)


_STATES = """# Every state, and every word of a ledger

Made of the tables in the code by `scripts/doc-tables`: change them there. Each table has one home, which its section
names; what is not in it cannot happen, and in tests it raises.
"""


def states_page() -> str:
    """`docs/states.md`."""
    entry = meanings((PACKAGE / "ledger" / "states.py").read_text(), "State")
    claims = meanings((PACKAGE / "ledger" / "states.py").read_text(), "Claim")
    facts = meanings((PACKAGE / "core" / "recovery_rules.py").read_text(), "Fact")
    dispositions = meanings((PACKAGE / "core" / "recovery_rules.py").read_text(), "Disposition")
    worker = meanings((PACKAGE / "core" / "fleet.py").read_text(), "WorkerState")
    return "\n".join(
        [
            _STATES,
            "## A request in a ledger: `ledger/states.py`\n",
            "![The states of a request in a ledger, as its owner writes them](diagrams/entry-states.svg)\n",
            table(("state", "meaning"), *((name, text) for name, text in entry.items())),
            table(
                ("event", "from", "to", "written by", "when"),
                *(
                    (
                        f"`{row.event}`",
                        ", ".join(state.name for state in sorted(row.sources)),
                        row.target.name,
                        row.writer.value,
                        row.when,
                    )
                    for row in states.TRANSITIONS.values()
                ),
            ),
            "What a claim is worth, by what its consumer then finds in the entry:\n",
            table(("claim", "meaning"), *((name, text) for name, text in claims.items())),
            table(
                ("state", "claim", "why"),
                *((state.name, claim.name, why) for state, (claim, why) in states.AFTER_CLAIM.items()),
            ),
            "## A request on its way through a worker: `roles/worker/request.py`\n",
            "![The phases of a request in a worker](diagrams/request-phases.svg)\n",
            table(("phase", "meaning"), *((phase.name, phase.value) for phase in request.Phase)),
            table(
                ("event", "from", "to"),
                *(
                    (f"`{event}`", ", ".join(p.name for p in request.Phase if p in sources), after.name)
                    for event, (sources, after) in request.TRANSITIONS.items()
                ),
            ),
            "## What recovery does with a request: `core/recovery_rules.py`\n",
            table(("fact", "meaning"), *facts.items()),
            table(("disposition", "meaning"), *dispositions.items()),
            table(
                ("state", "fact", "disposition"),
                *(
                    (state.name, fact.name or "otherwise", then.name)
                    for state, rows in recovery_rules.DISPOSITION.items()
                    for fact, then in rows
                ),
            ),
            "The first row of a state whose fact is given counts. What is claimed, or revoked, is left; but of what a\n"
            "dead supervisor had revoked, all that may have started goes by the table.\n",
            "## A worker: `core/fleet.py`\n",
            "![The states of a worker](diagrams/worker-states.svg)\n",
            table(("state", "meaning"), *((name, text) for name, text in worker.items())),
            steps_table(
                (state.name, event.__name__, after.name if after else "gone")
                for (state, event), after in fleet.TRANSITIONS.items()
            ),
            "## A connection to NATS: `core/connection_table.py`\n",
            "[connection.md](connection.md) has its states and steps.\n",
            "![The states of a connection to NATS; Close ends each](diagrams/connection-states.svg)\n",
            "## The words of a ledger's header: `ledger/layout.py`\n",
            table(
                ("word", "name", "written by", "meaning"),
                *(
                    (str(int(word)), f"`{name}`", word.writer.value, word.meaning)
                    for name, word in sorted(layout.HEADER.items(), key=lambda row: row[1])
                ),
            ),
            "## The words of an entry: `ledger/layout.py`\n",
            table(
                ("word", "name", "written by", "meaning"),
                *(
                    (str(number), f"`{name}`", writer.value, meaning)
                    for number, (name, (writer, meaning)) in enumerate(layout.ENTRY.items())
                ),
            ),
        ]
    )


def steps_table(steps: Iterable[tuple[str, str, str]]) -> str:
    """A table of transitions (from, event, to), those with the same event and end in one row."""
    rows: dict[tuple[str, str], list[str]] = {}
    for source, event, target in steps:
        rows.setdefault((event, target), []).append(source)
    return table(
        ("event", "from", "to"),
        *((f"`{event}`", ", ".join(sources), target) for (event, target), sources in rows.items()),
    )


def entry_diagram() -> str:
    """Mermaid: the life of a request in a ledger, as its owner writes it."""
    return mermaid(
        (source.name, row.event, row.target.name)
        for row in states.TRANSITIONS.values()
        if row.writer is states.Writer.OWNER
        for source in sorted(row.sources)
    )


def worker_diagram() -> str:
    """Mermaid: the life of a worker."""
    return mermaid(
        (state.name, event.__name__, after.name if after else "[*]")
        for (state, event), after in fleet.TRANSITIONS.items()
    )


def request_diagram() -> str:
    """Mermaid: a request on its way through a worker."""
    return mermaid(
        (source.name, event, after.name)
        for event, (sources, after) in request.TRANSITIONS.items()
        for source in request.Phase
        if source in sources
    )


def connection_diagram() -> str:
    """Mermaid: the life of a connection to NATS, without `Close`, which ends every state."""
    return mermaid(
        (state.name, event.__name__, after.name)
        for (state, event), after in connection_table.TRANSITIONS.items()
        if event is not connection_table.Close
    )


DIAGRAMS: dict[str, Callable[[], str]] = {
    "entry-states": entry_diagram,
    "request-phases": request_diagram,
    "worker-states": worker_diagram,
    "connection-states": connection_diagram,
}
"""State diagrams that are made of the tables, by the name of their source."""


def mermaid(steps: Iterable[tuple[str, str, str]]) -> str:
    """A state diagram of transitions (from, event, to); events between the same two states share an arrow."""
    arrows: dict[tuple[str, str], list[str]] = {}
    for source, event, target in steps:
        arrows.setdefault((source, target), []).append(event)
    lines = [f"    {source} --> {target}: {', '.join(events)}" for (source, target), events in arrows.items()]
    return "\n".join(["stateDiagram-v2", *lines]) + "\n"


_MODULES = """# Every module

Made of the docstrings in `daemon/ajhost/` by `scripts/doc-tables`: change them there. The order of the parts is that of
the [layers](architecture.md#layers): each imports only itself and what stands above it.
"""

LAYERS = ("", "protocol", "ledger", "core", "settings", "adapters", "roles", "testing", "cli")
"""The parts of the package, lowest first; "" is the package itself."""


def modules_page() -> str:
    """`docs/modules.md`."""
    parts = [_MODULES]
    for layer in LAYERS:
        folders = {path.parent for path in (PACKAGE / layer).rglob("*.py")} if layer else {PACKAGE}
        for folder in sorted(folders):
            name = folder.relative_to(PACKAGE).as_posix()
            rows = [
                (
                    f"`{path.name}`",
                    summary(path.read_text()),
                    ", ".join(f"`{name}`" for name in public(path.read_text())),
                )
                for path in sorted(folder.glob("*.py"))
                if path.name != "__init__.py"
            ]
            package = summary((folder / "__init__.py").read_text())
            parts.append(
                f"## {name if layer else 'ajhost'}\n\n{package}\n\n" + table(("module", "what it does", "names"), *rows)
            )
    return "\n".join(parts)


def summary(source: str) -> str:
    """The first paragraph of a module's docstring, on one line."""
    return " ".join((ast.get_docstring(ast.parse(source)) or "").partition("\n\n")[0].split())


def public(source: str) -> list[str]:
    """The classes and functions that a module has for others."""
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return [node.name for node in ast.parse(source).body if isinstance(node, kinds) and not node.name.startswith("_")]


PAGES: dict[str, Callable[[], str]] = {
    "timings.md": timings_page,
    "states.md": states_page,
    "modules.md": modules_page,
}
"""Pages under docs/ that are made whole."""

_EVENTS = {
    "Start": "the process connects",
    "Resolved": "the name has addresses, or the host is one",
    "Sealed": "INFO was read, and the transport is as secure as the settings want it",
    "Subscribed": "the server let us in and answered a PING behind our subscriptions",
    "Barred": "the server let us in and refused a subscription; the connection stays",
    "Lost": "the attempt or the connection is over, for a reason that may go away by itself",
    "Refused": "the attempt or the connection is over, for a reason that somebody must mend",
    "Due": "the pause is over, and it is this process's turn",
    "Quiet": "a PING was not answered",
    "Heard": "bytes came after all",
    "Leave": "the process leaves the queue group for good",
    "Close": "the process ends",
}
_LOGS = {
    "CLOSED": "",
    "RESOLVING": "",
    "CONNECTING": "",
    "SEALED": "",
    "SUBSCRIBED": "INFO `connected [again] to NATS at HOST:PORT` after a failure",
    "SILENT": "",
    "LOCKED_OUT": "WARNING `waiting for NATS at ...: why`, ERROR with the permission to grant; each once in 30 s",
    "WAITING": "WARNING `waiting for NATS at ...: why`, once in 30 s for each reason",
    "LEAVING": "as SUBSCRIBED",
}


def connection_states_table() -> str:
    """Each state of a connection: what ends it, what comes next, and what status, metrics and the log say."""
    lines = [
        "| state | ends when | next | `connection.state` in status | `ajhost_nats_connected` | log |",
        "|---|---|---|---|---|---|",
    ]
    for state in ConnectionState:
        subscribed = state in (ConnectionState.SUBSCRIBED, ConnectionState.SILENT)
        said = "connected" if state is ConnectionState.SUBSCRIBED else state.name.lower()
        name, log = f"`{state.name}`", _LOGS[state.name]
        for (before, event), after in TRANSITIONS.items():
            if before is state and event is not Close:
                ends = f"{event.__name__}: {_EVENTS[event.__name__]}"
                lines.append(f"| {name} | {ends} | `{after.name}` | {said} | {int(subscribed)} | {log} |")
    return "\n".join(lines) + "\n"


def connection_reasons_table() -> str:
    """Why there is no connection, and how long it takes until the same server is tried again."""
    lines = ["| reason | meaning | first pause, s | longest, s | state |", "|---|---|---|---|---|"]
    for reason, backoff in BACKOFF.items():
        if reason is not Reason.NONE:
            first = f"{backoff.first / 2:g} to {backoff.first:g}"
            longest = f"{backoff.most / 2:g} to {backoff.most:g}"
            state = "LOCKED_OUT" if reason in LOCKS_OUT else "WAITING"
            lines.append(f"| `{reason.name}` | {REASON_TEXTS[reason]} | {first} | {longest} | `{state}` |")
    return "\n".join(lines) + "\n"


def exits_table() -> str:
    """What `--help` of each command says of its exit statuses."""
    rows = [("command", "exit status")]
    context = click.Context(program)
    for name in program.commands:
        command = program.get_command(context, name)
        assert command is not None
        said = " ".join((command.epilog or "").replace("\b", "").partition("Exit status: ")[2].split())
        rows.append((f"`{name}`", re.sub(r"(^|[,.;:] )([0-9]+) ", r"\1**\2** ", said)))
    return table(*rows)


TABLES: dict[tuple[str, str], Callable[[], str]] = {
    ("operate.md", "reasons"): reasons_table,
    ("operate.md", "exits"): exits_table,
    ("connection.md", "states"): connection_states_table,
    ("connection.md", "reasons"): connection_reasons_table,
}
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
    for name, make in DIAGRAMS.items():
        (ROOT / "docs" / "diagrams" / f"{name}.mmd").write_text(make())
    for (name, title), make in TABLES.items():
        page = ROOT / "docs" / name
        page.write_text(with_table(page.read_text(), title, make()))


if __name__ == "__main__":
    main()
