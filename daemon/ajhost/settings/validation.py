"""Validates merged tables by the schema. Each mistake becomes a problem with what is allowed, or was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from ajhost.protocol.secret_masking import hidden
from ajhost.settings.errors import InvalidValue, shown
from ajhost.settings.merge import KeyPath, MergedTables, key_text
from ajhost.settings.schema import TABLES, Document, table_at
from ajhost.settings.secret_files import Files

SECRET_KEYS = frozenset(("password", "token"))
_MAY_BE_SECRET = ("nats", "signature")
"""Tables in which a wrong value may be a secret under the wrong key, so that errors do not show it."""


def validate(tables: MergedTables, files: Files) -> Document | None:
    """Returns the tables as the schema's models; or None, with every mistake in `tables.problems`."""
    try:
        return Document.model_validate(tables.raw, context=files)
    except ValidationError as error:
        for details in error.errors(include_url=False):
            _add_error(tables, details)
    return None


def _add_error(tables: MergedTables, details: Mapping[str, Any]) -> None:
    path: KeyPath = tuple(part for part in details["loc"] if part != "[key]")
    kind = details["type"]
    if kind == "missing" or (kind == "too_short" and path == ("handlers",)):
        # the missing key may be in a file that could not be read
        if tables.whole:
            tables.add(path, "nothing", _description(path))
    elif kind == "extra_forbidden":
        tables.add(path, "an unknown key", _alternatives(path))
    elif isinstance(unfit := details.get("ctx", {}).get("error"), InvalidValue):
        tables.add(path, unfit.found, unfit.allowed)
    elif path[-1] in SECRET_KEYS:
        tables.add(path, "something else", _description(path))
    elif path[0] in _MAY_BE_SECRET and isinstance(details["input"], str):
        tables.add(path, hidden(details["input"]), _description(path))
    else:
        tables.add(path, shown(details["input"]), _description(path))


def _description(path: KeyPath) -> str:
    """Returns the schema's text on what is allowed at `path`; for an item of a list, that of the list."""
    names = tuple(part for part in path if isinstance(part, str))
    if len(names) == 2 and names[0] == "handlers":
        return 'a table [handlers."<route>"]'
    while (table := table_at(names[:-1])) is None and len(names) > 1:
        names = names[:-1]  # a key of the user's choice, like a logger in [log.levels]
    if table is None or names[-1] not in table.model_fields:
        raise AssertionError(f"nothing is known of {key_text(path)}")
    return table.model_fields[names[-1]].description or ""


def _alternatives(path: KeyPath) -> str:
    """Returns the allowed keys of the table in which `path` is unknown, and the one that was probably meant."""
    *names, wrong = (str(part) for part in path)
    table = table_at(tuple(names))
    known = list(table.model_fields) if table is not None else []
    near = [key_text((*names, name)) for name in difflib.get_close_matches(wrong, known, n=1)]
    meant = near or [key_text((*place, wrong)) for place, table in TABLES.items() if wrong in table.model_fields]
    hint = f"; did you mean {meant[0]}?" if meant else ""
    return ", ".join(known) + hint
