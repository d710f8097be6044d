"""Whether the server that lets us in is the one of before, or requesters have to come back to it as well."""

from __future__ import annotations

from ajhost.core.server_restart import RestartWindow
from ajhost.protocol.server_info import ServerInfo


class KnownServer:
    """`changed`: the present server is another than before, or the same one started anew."""

    def __init__(self, restart_window: RestartWindow) -> None:
        self._restart_window = restart_window
        self._known: str | None = None
        self._absent = self.changed = False

    def absent(self) -> None:
        """No server could be reached."""
        self._absent = True

    def left(self) -> None:
        """The server is left on purpose, while it serves others still: nobody has to come back for that."""
        self._known = None

    def met(self, info: ServerInfo, now: float) -> None:
        """A server has greeted us."""
        found = info.server_id
        replaced = self._restart_window.server_seen(found.encode(), now, clustered=info.clustered)
        self.changed = self._absent or replaced or self._known not in (None, found)
        self._known, self._absent = found, False
