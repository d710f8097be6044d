"""Which configured handler serves a task: the route that its type, or the beginning of it, and its subject choose.

The router picks a route by its own registrations and sends the task on that route's subject (asyncjobs v0.3.0,
mux.go). The host may have finer routes: `email:new` and `email:` apart where the router knows only `email`. So the
task's type decides, but never in favour of a shorter route than the subject's.
"""

from __future__ import annotations

from collections.abc import Iterable

_KEPT = 4096
_LONGEST_KEPT = 256


class Routes:
    """The configured routes; `""` is the catch-all."""

    __slots__ = ("_by_length", "_found", "_routes")

    def __init__(self, routes: Iterable[str]) -> None:
        self._routes = frozenset(routes)
        self._by_length = sorted(self._routes, key=len, reverse=True)
        self._found: dict[tuple[str, str], str | None] = {}

    def match(self, subject_route: str, task_type: str) -> str | None:
        """Returns the configured route for a task of `task_type` that came on the subject of `subject_route`, or None.

        This is the exact type, else the longest route that the type begins with (every type begins with the catch-all).
        If `subject_route` is configured, no shorter route is returned.
        """
        key = (subject_route, task_type)
        try:
            return self._found[key]
        except KeyError:
            pass
        found = self._search(subject_route, task_type)
        # task types come from outside, so the cache is bounded in number and length
        if len(subject_route) + len(task_type) <= _LONGEST_KEPT:
            if len(self._found) >= _KEPT:
                self._found.clear()
            self._found[key] = found
        return found

    def _search(self, subject_route: str, task_type: str) -> str | None:
        longest = next((route for route in self._by_length if task_type.startswith(route)), None)
        if subject_route in self._routes and (longest is None or len(longest) < len(subject_route)):
            return subject_route
        return longest
