"""The exit statuses of all commands, on which scripts rely. Each command's --help says which of them it has."""

from __future__ import annotations

import signal

OK = 0
NO = 1
"""The host refused the request or did not do it, or the answer to a question is no."""
USAGE = 2
"""The arguments or options of the command are wrong."""
TERMINATED = 2
"""`ajhost call` alone: the task ended by AJ-Terminate."""
NO_HOST = 3
"""No host runs, or it cannot be asked."""
NO_ANSWER = 3
"""`ajhost call` alone: no answer came."""
CANNOT_START = 70
"""EX_SOFTWARE of sysexits.h: the host could not start."""
CANNOT_WRITE = 74
"""EX_IOERR of sysexits.h: stdout is full."""
BAD_CONFIGURATION = 78
"""EX_CONFIG of sysexits.h."""
INTERRUPTED = 128 + signal.SIGINT
BROKEN_PIPE = 128 + signal.SIGPIPE
