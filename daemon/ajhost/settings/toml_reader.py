"""The one way to Python's TOML parser, which raises more than it documents."""

from __future__ import annotations

import tomllib
from typing import Any


def tables(text: str) -> dict[str, Any]:
    """The tables of a TOML text.

    :raises tomllib.TOMLDecodeError: it is none, or holds what Python's parser stumbles over.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except RecursionError:
        raise tomllib.TOMLDecodeError("lists or tables are nested too deeply") from None
    except ValueError:  # of CPython's `int`: no more digits than sys.get_int_max_str_digits()
        raise tomllib.TOMLDecodeError("a number has too many digits") from None
