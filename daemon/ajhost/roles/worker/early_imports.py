"""Imports what a worker's own code would otherwise import after user code's path has been put in front of `sys.path`.

A module of the application that bears one of these names would then be imported in its place: `nacl.py` beside the
handlers made each signed request fail, `nkeys.py` each log-in. Imported here, the host has its own, as the template
imports this module before it looks for user code.
"""

from __future__ import annotations

import contextlib
import importlib

_LATE = (
    # protocol.signature, nats-py's log-in with an nkey or a creds file (nats-py 2.16, client.py), PyNaCl itself
    "_cffi_backend",
    "nacl.bindings",
    "nacl.exceptions",
    "nacl.public",
    "nacl.secret",
    "nacl.signing",
    "nacl.utils",
    "nkeys",
    # a server's name, on its way to getaddrinfo (CPython, socketmodule.c)
    "encodings.idna",
    "encodings.punycode",
    "stringprep",
    "unicodedata",
    # codecs that error texts, paths and files may ask for
    "encodings.ascii",
    "encodings.latin_1",
    "encodings.raw_unicode_escape",
    "encodings.unicode_escape",
    "encodings.utf_8_sig",
    # tracebacks, warnings, reprs
    "_colorize",
    "linecache",
    "reprlib",
    "tokenize",
    "traceback",
    "tracemalloc",
    "_strptime",
    # asyncio's and logging's own late imports
    "asyncio.base_subprocess",
    "asyncio.staggered",
    "asyncio.taskgroups",
    "asyncio.timeouts",
    "concurrent.futures.thread",
    "queue",
    # orjson's types (orjson 3, src/typeref.rs)
    "dataclasses",
    "datetime",
    "enum",
    "uuid",
)
"""By who imports them. What this interpreter does not have, it does not import late either."""


def import_all() -> None:
    """Imports them; called when this module's importer is loaded, and never later."""
    for name in _LATE:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


import_all()
