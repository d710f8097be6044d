"""Files of statistics, in which a route's counts outlast the worker that counted: the next one goes on in its file.
Each has one writer, and every process may read them (`runtime_directory.py`).
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from ajhost.adapters.linux import runtime_directory
from ajhost.adapters.linux.descriptors import closing
from ajhost.core import route_stats
from ajhost.core.route_stats import NoPlace, RouteStats, StatsError, StatsWriter

DIRECTORY = "stats"
"""The directory of these files, below the runtime directory."""
_log = logging.getLogger("ajhost.stats")
_SUFFIX = ".stats"
_SPARE_PLACES = 16
"""Places of a new file beyond those asked for: a reload may add routes."""
_LARGEST = route_stats.file_size(route_stats.MOST_PLACES)
"""The largest size of a file in bytes: routes that come and go over reloads use up its places."""


class StatsFile:
    """The file in which this process counts: the first one without a writer, or a new one.

    A process that gets none counts in private memory, which no process reads: no task fails for statistics.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._descriptor = -1
        try:
            self._descriptor = runtime_directory.take_first(directory, _SUFFIX)
        except OSError as error:
            self._report(error)

    def writer(self, routes: Sequence[str]) -> StatsWriter:
        """Returns a writer for these routes. Do not use an earlier one any more."""
        if self._descriptor >= 0:
            try:
                return _open(self._descriptor, routes, self._directory)
            except OSError as error:
                self._report(error)
        return StatsWriter(memoryview(bytearray(route_stats.file_size(len(routes)))), routes)

    def _report(self, error: OSError) -> None:
        _log.error("%s: %s: what this process does is not counted", self._directory, error.strerror)


def _open(descriptor: int, routes: Sequence[str], directory: Path) -> StatsWriter:
    size = os.fstat(descriptor).st_size
    if size:
        try:
            return StatsWriter(runtime_directory.map_file(descriptor, size), routes)
        except NoPlace:  # a reload has added routes
            size += _size_for(routes)
            if size <= _LARGEST:
                return StatsWriter(runtime_directory.map_file(descriptor, size), routes)
            _log.warning("%s: full of routes that were served once: a file's counts begin anew", directory)
        except StatsError as error:
            _log.warning("%s: %s: a file's counts begin anew", directory, error)
        os.ftruncate(descriptor, 0)
    return StatsWriter(runtime_directory.map_file(descriptor, _size_for(routes)), routes)


def _size_for(routes: Sequence[str]) -> int:
    return route_stats.file_size(len(routes) + _SPARE_PLACES)


def read_all(directory: Path) -> dict[str | None, RouteStats]:
    """Returns the sums over all files, by route; None for requests without one.

    It skips a file that may not be read, or is not one of statistics.
    """
    found = []
    for path in sorted(directory.glob(f"*{_SUFFIX}")):
        with contextlib.suppress(OSError, StatsError):
            found.append(route_stats.read(_content(directory, path.name)))
    return route_stats.add_up(found)


def _content(directory: Path, name: str) -> bytes:
    with closing(runtime_directory.open_file(directory, name, os.O_RDONLY)) as descriptor:
        return os.pread(descriptor, route_stats.used_size(os.pread(descriptor, route_stats.HEADER_SIZE, 0)), 0)
