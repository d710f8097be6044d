"""A callback before each instruction of a process's Python code."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any

_TOOL = 3
"""One of the two numbers that no kind of tool has reserved (sys.monitoring, "Tool identifiers")."""


class Instructions:
    """While the block runs, `before()` is called before each instruction of code for which `wanted(file)` holds.

    Python 3.12 and later have events for that (PEP 669). There, a trace function that asks for opcodes of a frame which
    is running already gets none in 3.12.1 and 3.13.0; before, sys.settrace is the only way.
    """

    def __init__(self, wanted: Callable[[str], bool], before: Callable[[], None]) -> None:
        self._wanted, self._before = wanted, before

    def __enter__(self) -> None:
        if sys.version_info >= (3, 12):
            monitoring = sys.monitoring
            monitoring.use_tool_id(_TOOL, "instructions")
            monitoring.register_callback(_TOOL, monitoring.events.INSTRUCTION, self._instruction)
            monitoring.set_events(_TOOL, monitoring.events.INSTRUCTION)
            # what was switched off for another block counts again
            monitoring.restart_events()
        else:
            self._previous = sys.gettrace()
            sys.settrace(self._trace)

    def __exit__(self, *_: object) -> None:
        if sys.version_info >= (3, 12):
            sys.monitoring.set_events(_TOOL, 0)
            sys.monitoring.register_callback(_TOOL, sys.monitoring.events.INSTRUCTION, None)
            sys.monitoring.free_tool_id(_TOOL)
        else:
            sys.settrace(self._previous)

    def _instruction(self, code: CodeType, offset: int) -> Any:
        if self._wanted(code.co_filename):
            self._before()
            return None
        if sys.version_info >= (3, 12):
            return sys.monitoring.DISABLE
        return None

    def _trace(self, frame: FrameType, event: str, argument: object) -> Any:
        if not self._wanted(frame.f_code.co_filename):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            self._before()
        return self._trace
