"""Writes down each call from one file of a package into another, in the process that imports this.

It imports nothing of the package, so that it serves any version of it.
"""

from __future__ import annotations

import ast
import json
import linecache
import os
import re
import sys
import textwrap
import time
from pathlib import Path
from types import CodeType, FrameType

_LOOPS = ("/asyncio/", "/threading.py", "/runpy.py")
"""A call from there is a turn of the event loop, or of a thread: nobody in the package has called."""
_RUN = ("run", "run_until_complete", "run_forever")
"""What the package itself calls to run a loop. One that is written in C, as uvloop is, has no frames of its own."""
_names: dict[tuple[CodeType, int], str] = {}


def begin(package: str, path: str) -> None:
    """From now on every crossing is a line of JSON at the end of `path`: when, in which turn, from where, to where."""
    root = f"{package.rstrip('/')}/"
    turn = 0

    def record(frame: FrameType, event: str, argument: object) -> None:
        nonlocal turn
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(root):
            return
        try:
            caller, direct = _caller(frame, root)
        except LookupError:
            return
        if caller is None:
            turn += 1
            origin, named = "", True
        else:
            origin = caller.f_code.co_filename.removeprefix(root)
            named = not direct or _is_named(caller, code.co_name)
        target = code.co_filename.removeprefix(root)
        if origin == target:
            return
        line = [time.monotonic_ns(), turn, origin, target, code.co_qualname, named]
        # opened each time: a process closes descriptors that it does not know
        with open(path, "a", encoding="utf-8") as log:  # nothing of pathlib's is to be traced
            log.write(json.dumps(line) + "\n")

    sys.setprofile(record)


def after_fork(package: str, directory: Path) -> None:
    """Each child of this process begins to record, into a file of its own."""
    os.register_at_fork(after_in_child=lambda: begin(package, f"{directory}/worker-{os.getpid()}.calls"))


def _caller(frame: FrameType, root: str) -> tuple[FrameType | None, bool]:
    """The frame of the package that called, and whether nothing stands between; None: an event loop did.

    :raises LookupError: the call is about a log record, which is no part of any way.
    """
    above, direct = frame.f_back, True
    while above is not None:
        name = above.f_code.co_filename
        if name.startswith(root):
            if direct and _written(above.f_code, above.f_lasti) in _RUN and frame.f_code.co_name not in _RUN:
                return None, False
            return above, direct
        if any(part in name for part in _LOOPS):
            return None, False
        if "/logging/" in name:
            raise LookupError
        above, direct = above.f_back, False
    return None, False


def _is_named(caller: FrameType, name: str) -> bool:
    """Whether the text of the call says what is called: "go to definition" follows it then."""
    if name.startswith(("__", "<gen", "<list", "<dict", "<set")):
        return True  # what the language calls by itself
    written = _written(caller.f_code, caller.f_lasti)
    return written in ("", name) or _is_bound(caller.f_code.co_filename, written, name)


def _is_bound(path: str, written: str, name: str) -> bool:
    """Whether the same file binds the one name to the other, as in `self._check = checker.check`."""
    pattern = rf"\b{written}\b[^=\n]*=[^=].*\.{name}\b"
    return any(re.search(pattern, line) for line in linecache.getlines(path))


def _written(code: CodeType, at: int) -> str:
    """The name of what is called at an instruction, as the source has it; empty if no call stands there."""
    key = code, at
    if key not in _names:
        _names[key] = _last_name(code, at)
    return _names[key]


def _last_name(code: CodeType, at: int) -> str:
    first, last, begin_column, end_column = list(code.co_positions())[at // 2]
    if first is None or last is None or begin_column is None or end_column is None:
        return ""
    lines = [linecache.getline(code.co_filename, number).encode() for number in range(first, last + 1)]
    lines[-1] = lines[-1][:end_column]
    lines[0] = lines[0][begin_column:]
    text = textwrap.dedent(b"".join(lines).decode())
    try:
        tree: ast.AST = ast.parse(f"({text})", mode="eval").body
    except SyntaxError:
        return ""
    if isinstance(tree, ast.Await):
        tree = tree.value
    called = tree.func if isinstance(tree, ast.Call) else tree
    match called:
        case ast.Attribute(attr=found) | ast.Name(id=found):
            return found
    return ""
