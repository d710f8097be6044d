"""The libraries that a worker needs: from which directories the handlers' interpreter imports them, and which early."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from pathlib import Path

_DEPENDENCIES = (
    *("nats", "nkeys", "nacl", "orjson", "setproctitle", "systemd", "uvloop"),
    # for typed payloads, and for results that orjson cannot encode; imported only then
    *("pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"),
)
"""Top-level modules besides the standard library."""
_LATE = (
    # protocol.signature, nats-py's log-in with an nkey or a creds file (nats-py 2.16, client.py), PyNaCl itself
    "_cffi_backend", "nacl.bindings", "nacl.exceptions", "nacl.public", "nacl.secret", "nacl.signing",
    "nacl.utils", "nkeys",
    # a server's name, on its way to getaddrinfo (CPython, socketmodule.c)
    "encodings.idna", "encodings.punycode", "stringprep", "unicodedata",
    # codecs that error texts, paths and files may ask for
    "encodings.ascii", "encodings.latin_1", "encodings.raw_unicode_escape", "encodings.unicode_escape",
    "encodings.utf_8_sig",
    # tracebacks, warnings, reprs
    "_colorize", "linecache", "reprlib", "tokenize", "traceback", "tracemalloc", "_strptime",
    # asyncio's and logging's own late imports
    "asyncio.base_subprocess", "asyncio.staggered", "asyncio.taskgroups", "asyncio.timeouts",
    "concurrent.futures.thread", "queue",
    # orjson's types (orjson 3, src/typeref.rs)
    "dataclasses", "datetime", "enum", "uuid",
)  # fmt: skip
"""Names of modules, by what imports them. A module that this interpreter lacks is not imported late either."""


def directories() -> list[str]:
    """Returns the directories from which this process imports these libraries, each once."""
    places: list[str] = []
    for name in _DEPENDENCIES:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            continue
        module = Path(spec.origin)
        place = str(module.parent.parent if spec.submodule_search_locations is not None else module.parent)
        if place not in places:
            places.append(place)
    return places


def import_early() -> None:
    """Imports what a worker's own code would otherwise import after user code's path is in front of `sys.path`.

    A module of the application with one of these names would then be imported in its place: a `nacl.py` beside the
    handlers would make each signed request fail, an `nkeys.py` each log-in.
    """
    for name in _LATE:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
