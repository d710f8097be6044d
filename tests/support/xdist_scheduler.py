"""Which process runs which test, for `pytest --numprocesses N --dist loadscope`."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

from tests.support.order import TOGETHER


class TestsThatShare(LoadScopeScheduling):  # type: ignore[misc]
    """Each test goes to whoever is free, but for those of `TOGETHER`, which go to one process.

    The groups, being the largest scopes, are begun first (LoadScopeScheduling.schedule, pytest-xdist 3.8). Its own
    `loadgroup` groups nothing under pytest 9.2.
    """

    __test__ = False  # no class of tests

    def _split_scope(self, nodeid: str) -> str:
        return TOGETHER.get(nodeid.partition("::")[0], nodeid)
