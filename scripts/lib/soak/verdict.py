"""The verdict: what is final is counted, what should not have happened is kept whole and explained as far as known."""

from __future__ import annotations

import math
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from scripts.lib.soak.router import NO_RESPONDERS, OK, SLACK, Request, stamp
from scripts.lib.soak.stage import Stage, Window, away_at

_DIED = re.compile(r"\(pid (\d+)\) died: ")
_LOG_TIME = re.compile(r"^\d{4}-\d\d-\d\d (\d\d:\d\d:\d\d\.\d{3}) (\w+) +(.*)")
_MOMENT = len("2026-01-01 00:00:00.000")
_SHOWN = 6
"""So many of a kind are told in full."""
_LINES = 30
_CROWD = 0.3
_IN_SERVER = 0.3
"""Seconds after which a request is surely no longer on its way through a server that runs."""
_REPEATED = 2.0
"""Seconds after a server's return in which a worker repeats its replies to a router that came back at once."""


@dataclass(slots=True)
class Finding:
    """Requests that have one thing in common that should not be; `fatal`: the run has failed."""

    title: str
    fatal: bool
    count: int = 0
    latest: float = 0.0
    """Seconds past the header's second, the worst of them."""
    since: float = 0.0
    until: float = 0.0
    """When the first and the last of them were sent."""
    examples: list[Request] = field(default_factory=list)

    def add(self, request: Request) -> None:
        """One more."""
        self.count += 1
        self.latest = max(self.latest, request.late)
        self.since = min(self.since or request.sent, request.sent)
        self.until = max(self.until, request.sent)
        # one of each crowd that was sent together, which will have the same reason
        alone = all(abs(request.sent - other.sent) > _CROWD for other in self.examples)
        if alone and len(self.examples) < _SHOWN:
            self.examples.append(request)


class Verdict:
    """Judges requests as they become final; `stage` knows the faults."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._log_file = log.open("rb")
        self._rest = b""
        self._dead: dict[int, float] = {}
        self.messages: Counter[str] = Counter()
        """The host's warnings and errors, numbers replaced."""
        self.unexpected: list[str] = []
        self.words: Counter[str] = Counter()
        self.requests = self.duplicates = self.moved_runs = 0
        self.silent = Finding("silent", True)
        self.late = Finding("late", True)
        self.twice = Finding("run twice, and the first worker did not die", True)
        self.after = Finding("run after its answer", True)
        self.nobody = Finding("no responders, with the server up", True)
        self.unproven = Finding("ok, but no run on record", True)
        self.foreign = Finding("another task's answer", True)
        self.lost = Finding("no answer around a fault of the server, and never run: perhaps lost in the server", False)
        self.held = Finding("no answer around a fault of the server, although the host had it", True)
        self.both = Finding(
            "no answer: the server was killed, and then the worker that was repeating its replies", False
        )
        self.unreachable = Finding("not answered in time, the server being away at the deadline", False)
        self.excused_late = Finding("late around a fault of the server, or of the whole daemon", False)
        self.excused_nobody = Finding("no responders while the server or the whole daemon was away", False)
        self.findings = (
            self.silent, self.held, self.late, self.twice, self.after, self.nobody, self.unproven, self.foreign,
            self.lost, self.both, self.unreachable, self.excused_late, self.excused_nobody,
        )  # fmt: skip
        self.stage: Stage | None = None

    def judge(self, request: Request) -> None:
        """Takes a request that is final."""
        assert self.stage is not None
        self.requests += 1
        self.duplicates += request.duplicates
        server = _touched(self.stage.server_windows, request)
        daemon = _touched(self.stage.daemon_windows, request)
        still = _touched(self.stage.still_windows, request)
        since, passed = self._way_through_server(request)
        if request.word is None or request.given_up:
            self.words["silent"] += 1
            in_server = any(w.touches(request.sent, passed) for w in self.stage.server_windows)
            servers = (*self.stage.server_windows, *self.stage.still_windows)
            if away_at(request.deadline, servers, self.stage.daemon_windows):
                self.unreachable.add(request)
            elif not server:
                self.silent.add(request)
            elif in_server and not request.runs:
                self.lost.add(request)
            elif self._lost_twice(request, server):
                self.both.add(request)
            else:
                self.held.add(request)
        else:
            self.words[request.word] += 1
            if request.late > 0:
                (self.excused_late if server or daemon or still else self.late).add(request)
        if request.word == NO_RESPONDERS:
            # a server that stood still learned of its subscribers as late as it came to this request
            away = any(w.touches(since, passed) for w in self.stage.server_windows)
            (self.excused_nobody if server or daemon or away else self.nobody).add(request)
            for window in (*server, *daemon):
                window.nobody += 1
        if request.word == OK:
            if not request.runs:
                self.unproven.add(request)
            if request.text:
                self.foreign.add(request)
        if len(request.runs) > 1:
            if self._explained(request):
                self.moved_runs += 1
            else:
                self.twice.add(request)
        if request.word is not None and any(run.at > request.answered + 0.05 for run in request.runs[:1]):
            self.after.add(request)

    def _way_through_server(self, request: Request) -> tuple[float, float]:
        """From when on the server did nothing, if it stood still, and when the request would surely have passed it."""
        assert self.stage is not None
        since, passed = request.sent, request.sent + _IN_SERVER
        for window in self.stage.still_windows:
            if window.start <= passed and (not window.end or window.end >= request.sent):
                since = min(since, window.start)
                passed = max(passed, (window.end or math.inf) + _IN_SERVER)
        return since, passed

    def _explained(self, request: Request) -> bool:
        """Whether each worker that ran it, but the last, has died."""
        assert self.stage is not None
        dead = self._dead.keys() | self.stage.killed
        return all(run.pid in dead for run in sorted(request.runs, key=lambda run: run.at)[:-1])

    def _lost_twice(self, request: Request, server: list[Window]) -> bool:
        """Whether a worker that ran it died, or every process, too soon after the server to repeat its reply."""
        assert self.stage is not None
        deaths = [self._dead.get(run.pid, 0.0) for run in request.runs]
        if request.runs:
            deaths += [window.start for window in self.stage.daemon_windows]
        return any(
            window.start <= death <= (window.end or math.inf) + _REPEATED for window in server for death in deaths
        )

    def read_log(self) -> None:
        """Takes what the host has logged since the last time."""
        *lines, self._rest = (self._rest + self._log_file.read()).split(b"\n")
        for raw in lines:
            line = raw.decode(errors="replace")
            found = _LOG_TIME.match(line)
            if (died := _DIED.search(line)) is not None:
                at = datetime.fromisoformat(line[:_MOMENT]).timestamp() if found is not None else time.time()
                self._dead[int(died[1])] = at
            if "unexpected:" in line or "was never retrieved" in line:
                self.unexpected.append(line)
            if found is not None and found[2] in ("WARNING", "ERROR", "CRITICAL"):
                text = re.sub(r"\[[^]]*\]$", "", re.sub(r"\d+(\.\d+)?", "N", found[3]))
                self.messages[text[:110]] += 1

    @property
    def failed(self) -> bool:
        """Whether anything happened that must not."""
        assert self.stage is not None
        return bool(
            any(finding.count for finding in self.findings if finding.fatal) or self.unexpected or self.stage.surprises
        )

    # -- in words -------------------------------------------------------------------------------

    def report(self) -> Iterator[str]:
        """All of it, line by line."""
        stage = self.stage
        assert stage is not None
        yield f"requests  {self.requests:,}"
        for word, count in self.words.most_common():
            yield f"  {count:>9,}  {word}"
        yield f"  {self.duplicates + stage.router.belated:>9,}  further answers (harmless: the router takes the first)"
        yield f"  {self.moved_runs:>9,}  run twice, the first worker having died"
        yield "faults"
        for kind, count in stage.counts.most_common():
            yield f"  {count:>9,}  {kind}"
        if any(window.nobody for window in stage.daemon_windows):
            yield "no responders while the daemon was away"
            for window in stage.daemon_windows:
                yield f"  {window.nobody:>9,}  {stamp(window.start)}, {window.end - window.start:.2f} s, {window.name}"
        yield "the host's warnings and errors"
        for text, count in self.messages.most_common(25):
            yield f"  {count:>9,}  {text}"
        yield "verdict"
        for finding in self.findings:
            worst = f", at most by {finding.latest:.3f} s" if finding.latest else ""
            yield f"  {finding.count:>9,}  {finding.title}{worst}"
        for text in (*self.unexpected[:_SHOWN], *stage.surprises[:_SHOWN]):
            yield f"  !  {text}"
        for finding in self.findings:
            if finding.examples and (finding.fatal or finding in (self.lost, self.both, self.unreachable)):
                yield ""
                span = f"sent between {stamp(finding.since)} and {stamp(finding.until)}"
                yield f"{finding.title}: {finding.count}, {span}, of which"
                for request in finding.examples:
                    yield from self._explain(request)

    def _explain(self, request: Request) -> Iterator[str]:
        assert self.stage is not None
        yield f"- {request}"
        end = max(request.answered, request.deadline + SLACK if request.word is None else 0)
        for event in self.stage.events:
            if request.sent - 3 <= event.at <= end + 0.5:
                yield f"    {stamp(event.at)} ({event.at - request.sent:+.2f} s) FAULT {event.text}"
        pids = {str(run.pid) for run in request.runs}
        for line in self._around(request.sent - 0.5, end + 0.2, request.id, pids):
            yield f"    {line}"

    def _around(self, since: float, until: float, id_: str, pids: set[str]) -> Iterator[str]:
        """The host's log lines of that time; the supervisor's, and those about the request or its workers."""
        shown = 0
        first, last = stamp(since), stamp(until)
        with self._log.open(errors="replace") as log:
            for line in log:
                found = _LOG_TIME.match(line)
                if found is None or not first <= found[1] <= last:
                    continue
                text = found[3]
                if id_ in text or text.startswith("supervisor") or any(f"pid {pid}" in text for pid in pids):
                    shown += 1
                    if shown > _LINES:
                        yield "..."
                        return
                    yield f"{found[1]} {found[2]} {text[:200]}"


def _touched(windows: list[Window], request: Request) -> list[Window]:
    end = request.deadline + SLACK if request.word is None or request.given_up else request.answered
    return [window for window in windows if window.touches(request.sent, end)]
