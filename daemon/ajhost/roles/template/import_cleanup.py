"""Removes with the generation what an import has made for the life of its process: temporary files and directories.

A worker runs what an import has registered with `atexit`, as libraries send their last data by it. But all workers of
the generation share the files that the import has made, and the first worker that ends must not remove them. So the
template keeps the registered removals for its own end, when no worker of the generation is left. It recognises the
functions of the standard library that remove files (matplotlib registers `shutil.rmtree`), and `weakref.finalize`, by
which `tempfile.TemporaryDirectory` is removed.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_REMOVALS = (shutil.rmtree, os.remove, os.unlink, os.rmdir, os.removedirs)
_METHODS = ("cleanup", "unlink", "rmdir")
_OWNERS = (tempfile.TemporaryDirectory, Path)


class ImportCleanup:
    """The removals that imports have registered."""

    def __init__(self) -> None:
        self._removals: list[Callable[[], object]] = []

    @contextlib.contextmanager
    def collecting(self) -> Iterator[None]:
        """Keeps the removals that are registered meanwhile."""
        real = atexit.register
        collects = True

        def register(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Callable[..., Any]:
            if not collects or not _removes(function):
                return real(function, *args, **kwargs)
            self._removals.append(functools.partial(function, *args, **kwargs))
            return function

        atexit.register = register
        try:
            yield
        finally:
            atexit.register, collects = real, False  # a module may have imported the other one by its name
            for finalizer in [f for f in getattr(weakref.finalize, "_registry", None) or () if f.atexit]:
                finalizer.atexit = False
                self._removals.append(finalizer)

    def run(self) -> None:
        """Runs them, the last one first. Raises nothing."""
        while self._removals:
            with contextlib.suppress(Exception):
                self._removals.pop()()


def _removes(function: Callable[..., Any]) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    if any(function is removal for removal in _REMOVALS):
        return True
    return isinstance(getattr(function, "__self__", None), _OWNERS) and function.__name__ in _METHODS
