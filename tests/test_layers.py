"""The layers of `docs/architecture.md`, kept by reading every import of every module."""

from __future__ import annotations

import ast
import functools
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "daemon" / "ajhost"
LINES = 420
"""No module is longer, about."""

LAYERS = ("protocol", "ledger", "core", "settings", "api", "adapters", "roles", "testing", "cli")
"""Each imports only itself and what stands before it."""

FOREIGN: dict[str, set[str]] = {
    "protocol": {"orjson", "nacl", "pydantic_core"},
    "ledger": set(),
    "core": set(),
    "settings": {"pydantic"},
    "api": {"typing_extensions"},  # for the type checker alone
    "adapters": {
        "nats",
        "nkeys",
        "orjson",
        "prometheus_client",
        "setproctitle",
        "systemd",
        "uvicorn",
        "uvloop",
    },
    "roles": {"orjson", "pydantic", "typing_extensions", "uvloop"},
    "testing": {"orjson", "pytest"},
    "cli": {"click", "orjson", "prompt_toolkit", "watchfiles"},
}
"""What a layer may import that is neither ours nor the standard library's."""

SANS_IO = {"asyncio", "logging", "os", "selectors", "signal", "socket", "subprocess", "threading", "time"}
"""No clock, no loop, no log, no system calls: `protocol`, `ledger` and `core` are functions of their arguments."""
FENCE = ("ajhost.ledger.view", "threading")
"""A lock for which nobody ever waits: what Python has of a memory barrier."""

ONLY_IN: dict[str, set[str]] = {
    "nats": {"ajhost.adapters.nats.dev_client", "ajhost.adapters.nats.connect_and_log_in"},
    "prometheus_client": {"ajhost.adapters.prometheus"},
    "prompt_toolkit": {"ajhost.cli.top_screen"},
    "pydantic": {
        "ajhost.settings.environment",
        "ajhost.settings.validation",
        "ajhost.settings.schema",
        "ajhost.roles.payload_readers",
    },
    "pydantic_core": {"ajhost.protocol.json_encoding"},
    "uvicorn": {"ajhost.adapters.http"},
}
"""Packages that only these modules may import, whatever their layer may."""


@dataclass(frozen=True, slots=True)
class Import:
    """One import: who, what (with the imported name), on which line."""

    importer: str
    imported: str
    line: int

    @property
    def top(self) -> str:
        return self.imported.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


def module_name(path: Path) -> str:
    """`daemon/ajhost/ledger/view.py` -> `ajhost.ledger.view`; a package's `__init__` is the package."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def layer_of(module: str) -> str:
    """The layer of a module of ours. The package itself re-exports `api`; running it is the command line."""
    parts = module.split(".")
    if len(parts) == 1:
        return "api"
    return "cli" if parts[1] == "__main__" else parts[1]


def imports_of(module: str) -> list[Import]:
    """Every import of a module, those inside functions too; `from package import name` means `package.name` if that is
    a module of ours.
    """
    tree = ast.parse(MODULES[module].read_text(), MODULES[module])
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [Import(module, alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: relative imports hide the layer"
            assert node.module is not None
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.append(Import(module, full if full in MODULES else node.module, node.lineno))
    return found


@functools.cache
def every_import() -> list[Import]:
    """Those of all modules, read when the first test asks: each process that runs tests collects all of them."""
    return [found for module in MODULES for found in imports_of(module)]


def test_there_is_something_to_read() -> None:
    assert {layer_of(module) for module in MODULES} == set(LAYERS)


def test_every_module_belongs_to_a_layer() -> None:
    assert [module for module in MODULES if layer_of(module) not in LAYERS] == []


def test_the_layers_are_those_of_the_document() -> None:
    table = re.findall(r"^\| `(\w+)(?:/|\.py)` \|", (ROOT / "docs" / "architecture.md").read_text(), re.MULTILINE)
    assert tuple(table) == LAYERS


def test_a_layer_imports_only_what_stands_above_it() -> None:
    wrong = [
        str(found)
        for found in every_import()
        if found.top == "ajhost" and LAYERS.index(layer_of(found.imported)) > LAYERS.index(layer_of(found.importer))
    ]
    assert wrong == []


def test_a_layer_imports_only_the_packages_it_may() -> None:
    wrong = [
        str(found)
        for found in every_import()
        if found.top != "ajhost"
        and found.top not in sys.stdlib_module_names
        and found.top not in FOREIGN[layer_of(found.importer)] | {"_typeshed"}
    ]
    assert wrong == []


def test_protocol_ledger_and_core_touch_neither_clock_nor_system() -> None:
    wrong = [
        str(found)
        for found in every_import()
        if layer_of(found.importer) in ("protocol", "ledger", "core") and found.top in SANS_IO
        if (found.importer, found.top) != FENCE
    ]
    assert wrong == []


@pytest.mark.parametrize("package", ONLY_IN)
def test_a_foreign_thing_has_one_home(package: str) -> None:
    wrong = [str(found) for found in every_import() if found.top == package and found.importer not in ONLY_IN[package]]
    assert wrong == []


def test_no_module_is_too_long() -> None:
    lengths = {module: len(path.read_text().splitlines()) for module, path in MODULES.items()}
    assert {module: length for module, length in lengths.items() if length > LINES} == {}


def test_modules_do_not_import_each_other_in_circles() -> None:
    finished: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join((*way[way.index(module) :], module))
        if module not in finished:
            for found in imports_of(module):
                # inside a package, its `__init__` runs first whoever imports what of it
                if found.imported in MODULES and found.imported != module:
                    visit(found.imported, (*way, module))
            finished.add(module)

    for module in MODULES:
        visit(module, ())
