"""Every time constant by which the host's processes, the server and routers wait for each other, in seconds.

The ledger counts monotonic nanoseconds; `nanoseconds` converts. `tests/unit/core/test_timings.py` asserts the
inequalities that the design relies on. `docs/timings.md` is made of the sections, names and docstrings here.
"""

from __future__ import annotations

from ajhost.ledger.writer import REFUSAL_DUE_NS

FAR_FUTURE_NS = 1 << 62
"""A time after every deadline, in the ledger's monotonic nanoseconds."""


def nanoseconds(seconds: float) -> int:
    """Returns seconds as the ledger counts them. Call it once at import, not for each request."""
    return round(seconds * 1e9)


# -- Liveness: a worker writes heartbeats, the supervisor checks them --------------------------------------------------

HEARTBEAT_INTERVAL = 0.1
"""A worker's loop writes its heartbeat this often. Each write takes the interpreter's lock from busy threads."""
CHECK_INTERVAL_CALM = 0.1
"""The supervisor checks its workers this often while every heartbeat is on time."""
CHECK_INTERVAL = 0.05
"""The supervisor checks its workers this often while one is late or hangs, or while requests wait in its own ledger. It
answers an entry that two checks found overdue, so this is also how long an entry must be overdue.
"""
HEARTBEAT_MISSED = 0.12
"""A heartbeat older than this was missed: the supervisor now keeps the deadlines of that worker's tasks."""
HEARTBEAT_STALE = 0.35
"""A worker whose heartbeat is older than this hangs: it missed three."""
HEARTBEAT_STALE_LONGEST = 2.0
"""The limit doubles, up to this, for a worker that was taken for hanging and was not."""
STARVED = 0.1
"""A worker that had no CPU for this long, since it missed a heartbeat, is on a machine short of CPUs. From then on only
the rest of the time counts, and the worker hangs after `HEARTBEAT_STALE_LONGEST` of it.
"""
STALLED_LIMIT = 3.0
"""A worker on a machine short of CPUs that writes no heartbeat and begins no task for this long hangs, however little
CPU it had, since only a takeover can answer the requests unread in its connection. Time in which the supervisor did not
run either is left out.
"""
STARVED_TAKEOVER_INTERVAL = 0.5
"""On a machine short of CPUs takeovers begin at least this long apart: each costs CPU time that the others lack. None
waits until another hang ends: no process can answer the requests unread in a connection before its takeover.
"""
UNREAD_LIMIT = 0.5
"""A worker whose loop turns but that reads none of the bytes in its connection for this long hangs."""
UNSUBSCRIBED_LIMIT = 3.0
"""A worker that is out of the queue group this long, while another process of the host is connected, hangs."""
HEARTBEAT_AHEAD = 1.0
"""A heartbeat further in the future than this is a damaged word, and is ignored."""
SUPERVISOR_SILENT = 3.0
"""A supervisor whose heartbeat is older than this is shown as hanging."""
FIRST_HEARTBEAT_LIMIT = 10.0
"""A new worker must write its first heartbeat within this, or within the import timeout if that is longer."""
CHECK_ON_TIME = 0.02
"""A check that is at most this late proves that the supervisor was running; one check is then enough instead of two."""
HUNG_REPLACED_AFTER = 2.0
"""A slot whose worker hangs this long gets another one. If no other worker serves, it gets one at once."""
STACKS_BEFORE_KILL = 0.1
"""The supervisor asks a hanging worker for its stacks (SIGUSR2) this long before it sends SIGKILL."""
MEMORY_CHECK_INTERVAL = 1.0
"""The supervisor compares the workers' resident memory with `max_memory` this often."""

# -- Stopping and reaping processes ------------------------------------------------------------------------------------

STOP_LIMIT = 0.25
"""The supervisor blocks this long at most until SIGSTOP has taken effect on a hanging worker."""
STOP_RETRY = 1.0
"""The supervisor stops a worker again after this when it did not stop in time: the machine is overloaded."""
STOP_POLL = 0.0001
"""The supervisor checks this often whether SIGSTOP has taken effect on a process."""
STRAY_HUNT = 1.0
"""For this long after a worker's death the supervisor kills unknown processes that have become its children."""
REAP_RETRY = 0.001
"""A dead worker is reaped again after this while its parent, the process between template and worker, still exists."""

# -- Recovery of a worker that died or hangs ---------------------------------------------------------------------------

DRAIN_LIMIT = 0.5
"""Recovery waits this long for the server to flush and close a connection while a stopped worker waits. The rest of the
connection is then read from a ledger of its own.
"""
STANDBY_SUBSCRIBE_LIMIT = 1.0
"""Recovery waits this long for the supervisor's own subscription."""
DEAD_DRAIN_LIMIT = 360.0
"""The supervisor reads a dead worker's connection for at most this long. A nats-server closes a client that is cut off
after `ping_interval` (2 minutes) times `ping_max` (2) and one more.
"""
DEAD_DRAIN_LIMIT_STOPPING = 2.0
"""The same while the host stops."""
REFUSAL_DUE = REFUSAL_DUE_NS / 1e9
"""A refusal is due this long after its request was received. If its worker hangs until then the supervisor answers."""
RESOURCE_RETRY = 0.25
"""A step of recovery that found no free descriptor, or the like, is tried again after this."""
ORPHAN_GRACE = 3.0
"""A worker without a supervisor stays subscribed this long, unless the next start tells it to leave. A router waits 2 s
past the deadline that it names, so a request that is lost in that time was late in any case.
"""
SOCKET_STORED_LIMIT = 1.0
"""A worker waits this long for the supervisor to get a duplicate of its new connection, and then goes on without."""
SOCKET_TAKEOVER_LIMIT = 3.0
"""A worker whose socket foreign code has closed waits this long for a takeover before it connects anew."""

# -- Start, generations, stop ------------------------------------------------------------------------------------------

STABLE_AFTER = 1.0
"""A worker that served this long is replaced at once when it dies: its death says nothing about the code."""
RESPAWN_FIRST = 0.1
"""The second worker in a row that dies sooner is replaced after this pause, which doubles."""
RESPAWN_LONGEST = 10.0
"""The longest pause before a worker is replaced."""
RENEW_FIRST = 0.1
"""A generation whose template died gets a new template after this pause, which doubles."""
RENEW_LONGEST = 10.0
"""The longest pause before a template is replaced."""
SERVE_LIMIT = 30.0
"""A new generation must serve in every slot within this, or the reload is undone."""
TEMPLATE_START_MARGIN = 3.0
"""The supervisor kills a template this long past the import timeout if it did not end itself."""
FORK_LIMIT = 10.0
"""The supervisor kills a template that needs longer than this for a fork, and starts a new generation."""
FORK_STOPPED_INTERVAL = 0.5
"""While it waits for a fork, the supervisor checks this often whether a SIGSTOP has stopped the template. It kills one
that is stopped at two checks, which would not fork until a SIGCONT.
"""
FORK_PROBE_FIRST_LIMIT = 10.0
"""Before the import the template's first trial fork may take this long."""
FORK_PROBE_LIMIT = 4.0
"""After the import a trial fork may take this long. A worker needs two forks within `FORK_LIMIT`."""
FORK_PROBE_SLOW = 0.5
"""A trial fork that the import made slower by this is reported."""
HANDOVER_LIMIT = 0.2
"""After a template was killed, the process between template and worker has this long to report the worker."""
STOP_MARGIN = 3.0
"""The supervisor kills workers this long past the drain timeout. Its own last answers then have the same time."""
STACKS_ANSWER_LIMIT = 1.0
"""A worker that has not answered with its stacks within this is asked for them by SIGUSR2, which C code answers."""
DRAIN_ANSWER_LIMIT = 3.0
"""`ajhost drain` and `ajhost resume` are answered after this, though a worker has not left or joined the group yet."""
DRAIN_LOOK_INTERVAL = 0.2
"""`ajhost drain --wait` checks this often which tasks are left."""
CANCEL_ANSWER_LIMIT = 1.0
"""The supervisor waits this long for a worker to say whether it has the task to be cancelled, then answers itself."""
EXIT_LIMIT = 2.0
"""A worker that ends exits after this, even if the application's `atexit` functions still run."""
FLUSH_LIMIT = 3.0
"""A worker that ends waits this long for the server to confirm its last replies."""
CLOSE_LIMIT = 1.0
"""Closing a NATS connection in order may take this long."""
RESTART_QUERY_LIMIT = 1.0
"""A stop asks systemd for at most this long whether it will start the unit again."""
POLL_INTERVAL = 0.05
"""Pause between two checks of states without a signal of their own: a full channel, a stop or a reload under way."""
POLL_INTERVAL_LAST = 0.01
"""The same while only the last answers are waited for."""
STATUS_INTERVAL = 1.0
"""The supervisor sends systemd its status this often."""

# -- Deadlines of tasks ------------------------------------------------------------------------------------------------

ROUTER_SLACK = 2.0
"""A router waits this long past the deadline that it names (asyncjobs v0.3.0, request_reply_handler.go)."""
ANSWER_MARGIN = 0.2
"""An answer leaves at the latest this long before the header's second."""
PULL_MARGIN = 0.005
"""A worker does not start a queued request with less time left than this: its owner answers it at the deadline."""
DEADLINE_SWEEP = 0.02
"""A worker checks for passed deadlines at most this often."""
TIMER_RESOLUTION = 0.001
"""The event loop's timers are exact to this."""
VERDICT_LIMIT = 0.05
"""A consumer that claims a request which its owner has taken back blocks this long at most until the owner frees or
answers it. The owner needs microseconds, unless it is stopped or dies in between.
"""
VERDICT_RECHECK = 0.0002
"""The consumer checks this often meanwhile."""
PERMIT_RETRY = 0.01
"""A worker tries again this often for a task whose route has reached its limit of the whole host."""
TOKEN_RECHECK = 0.001
"""A token is checked again after this while its producer is between sending it and storing its state."""
PRUNE_INTERVAL = 1.0
"""A worker unmaps the ledgers of dead processes this often."""
UNOWNED_AFTER = 0.5
"""A worker ends when its ledger holds a request this old of which none of its parts knows: a step was interrupted."""
RECLAIM_PAUSE = 0.002
"""A producer whose backlog is full checks at most this often which requests were started. To check a thousand entries
takes a tenth of it.
"""
SWITCH_INTERVAL = 0.0002
"""The interpreter's switch interval in workers with threads. With Python's 5 ms the loop waits behind each thread that
computes (docs/performance.md).
"""
REFUSAL_INTERVAL = 5.0
"""A process that is refused a thread, a child or a descriptor checks at most this often which limit is reached, since
it reads all of /proc for that.
"""
COLLECT_RETRY = 0.01
"""A worker checks its memory and descriptors again after this while they grow fast."""
COLLECT_AGAIN = 1.0
"""A worker collects garbage once more after this if tasks held objects during a collection that they may have released
since.
"""
COLLECT_AGAIN_LONGEST = 16.0
"""The pause doubles with each further collection, and after one of this length there is none."""
WATCHDOG_LEAST = 2.0
"""The supervisor warns of a shorter WatchdogSec= in its unit: a busy machine may give it no CPU for so long."""
WATCHDOG_LATE = 30.0
"""A process whose loop never runs again ends itself this long past its last deadline and the kill grace."""
WATCHDOG_SLACK = 60.0
"""The watchdog is set this much further than necessary, so that it is set anew about once a minute."""

# -- Clocks ------------------------------------------------------------------------------------------------------------

SKEW_PLAUSIBLE = 300.0
"""The host corrects for routers' clocks that differ by up to this. Beyond it, the deadline header counts as it is."""
SKEW_NOTICED = 0.25
"""A smaller difference between the clocks is not corrected for."""
SKEW_WINDOW = 30.0
"""The freshest request within this time gives the difference between the clocks."""
SKEW_WARNING = 2.0
"""A larger difference between the clocks is logged."""
SKEW_WARNING_INTERVAL = 60.0
"""The difference between the clocks is logged at most this often."""

# -- Replies -----------------------------------------------------------------------------------------------------------

CONFIRM_INTERVAL = 0.25
"""A worker asks the server (PING) this often whether it has read the replies. Each costs the server a PONG."""
CONFIRMED_KEPT = 2.0
"""A worker keeps a reply this long after the server has read it: a server that is killed may not have passed it on."""
REPEAT_PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""After a server's restart a reply is sent again after each of these pauses: a Go router reconnects after 1, 4 and
7 s.
"""
RECONNECT_WINDOW_SHORTEST = 10.0
"""After a server's restart requesters have as long to reconnect as the server was away, but at least this long."""
RECONNECT_WINDOW_LONGEST = 60.0
"""The same, at most: `RetryLinearOneMinute` in asyncjobs v0.3.0 pauses no longer."""

# -- Connection to NATS ------------------------------------------------------------------------------------------------

CONNECTION_TICK = 0.25
"""The driver of a connection sends a `Ticked` this often, if nothing is due before."""
CONNECTION_TICK_LONGEST = 0.5
"""Of a longer pause between two ticks only this much counts against a server: the process did not run."""
RESOLVE_LIMIT = 2.0
"""Looking up the addresses of a server may take this long."""
CONNECT_LIMIT = 3.0
"""Opening a socket, the server's INFO and the TLS handshake may take this long together."""
DISCOVERED_CONNECT_LIMIT = 1.5
"""The same for a server that is not configured but was named by another server."""
LOGIN_LIMIT = 3.0
"""Credentials and subscriptions may take this long."""
ATTEMPT_LIMIT = 4.0
"""All steps of an attempt may take this long together."""
ADDRESS_STAGGER = 0.25
"""After this the next address of a server is tried in parallel (RFC 8305, section 5)."""
PING_UNANSWERED = 0.5
"""A PING that is not answered for this long makes a connection SILENT."""
SERVICE_ANSWER_KEPT = 0.2
"""The supervisor repeats its answer as a NATS service for this long before it makes a new one."""
LOCAL_CLIENT_LIMIT = 5.0
"""A client of the control or view socket has this long to send its request, and as long to read the answer."""
TRIAL_LIMIT = 5.0
"""`ajhost check --connect` gives each server this long for log-in, subscriptions and a message."""
SERVICES_ASKED = 0.5
"""`ajhost check --connect` waits this long for other services to name their queue groups."""
EXPIRY_WARNING = 14 * 86_400.0
"""`ajhost check --connect` warns of a certificate or JWT that expires sooner."""
CONNECTION_PROVEN = 2.0
"""A server's failures are forgotten when a connection to it has lasted this long. A server that accepts a log-in and
ends the connection at once keeps its growing pauses.
"""
RETRY_FIRST = 0.1
"""A server is tried again after this pause, which grows with each failure in a row."""
RETRY_LONGEST = 2.0
"""The longest such pause."""
LOCKED_OUT_RETRY_FIRST = 0.4
"""The same for a server that refuses this process for a reason that lasts until an operator acts."""
LOCKED_OUT_RETRY_LONGEST = 5.0
"""The longest such pause."""
LOGIN_SPREAD = 1.0
"""After one process of a host has logged in, the others do so within this."""
SCOUT_INTERVAL = 1.0
"""Pause between two searches for a server to move to."""
SCOUT_LIMIT = 4.0
"""A second connection that tries a server before a move must be logged in within this."""
MOVE_LIMIT = 2.0
"""Leaving the queue group may take this long before the connection is made anew."""
LAST_WORDS = 1.0
"""An `-ERR` this shortly before a server ends a connection is the reason, even if its text is unknown."""
DISCOVERED_FORGOTTEN = 600.0
"""A discovered server is forgotten after this, unless a server names it again."""
GATE_NEWCOMER_SPACING = 0.03
"""While logins fail, processes that were not refused yet try this far apart."""
GATE_SPACING_FIRST = 0.08
"""While logins fail, all other processes of a host try this far apart at first."""
GATE_SPACING_LAST = 0.25
"""The same once logins have failed for `GATE_SPACING_GROWN`."""
GATE_SPACING_GROWN = 10.0
"""The spacing of logins grows for this long."""
GATE_MOVE_SPACING = 0.1
"""Two processes leave a server that is about to stop this far apart."""
GATE_FARTHEST = 3.0
"""A turn that is further away is a word of another boot, or a damaged one."""
TCP_PROBE_AFTER = 5.0
"""The kernel probes a peer that has sent nothing for this long. Whole seconds (tcp(7), TCP_KEEPIDLE)."""
TCP_PROBE_INTERVAL = 2.0
"""The kernel probes it again after this. Whole seconds (tcp(7), TCP_KEEPINTVL)."""
TCP_UNACKNOWLEDGED_LIMIT = 15.0
"""The kernel ends a connection whose bytes are not acknowledged for this long (tcp(7), TCP_USER_TIMEOUT)."""

# -- HTTP, logs, commands ----------------------------------------------------------------------------------------------

PAGE_INTERVAL = 1.0
"""The HTTP server sends the host's state this often to each browser that shows the page."""
HTTP_HEAD_LIMIT = 5.0
"""The HTTP server closes a connection whose request is not whole this long after its first byte."""
HTTP_IDLE_LIMIT = 15.0
"""The HTTP server closes a connection that sent no request, or did not read its answers, for this long."""
STATS_SAMPLE_INTERVAL = 10.0
"""The supervisor keeps the sums of the routes' statistics this often, for the rates of the last minute."""
LOG_REPEAT = 30.0
"""The same trouble is logged again only after this, with how often it occurred."""
STACKS_REPEAT = 60.0
"""At most one stack in this time is logged for each route whose tasks reach their deadlines."""
TEMPLATE_EXIT_LIMIT = 2.0
"""A template has this long to end after its channel was closed, as it removes what its imports have made."""
TEMPLATE_STACKS_LIMIT = 0.5
"""A template that imports has this long to write its stacks, which C code does."""
JOURNAL_WRITE_LIMIT = 0.1
"""One write of C code or of a child to stdout or stderr waits at most this long for journald."""
RUNTIME_FILES_INTERVAL = 1.0
"""The supervisor checks this often that its files in the runtime directory still exist."""
CONTROL_ANSWER_LIMIT = 30.0
"""A command waits this long for the host's answer. `ajhost reload` waits for its own `--timeout`."""
CALL_CONNECT_LIMIT = 3.0
"""A command that needs NATS connects within this; `ajhost call` has it on top of the task's timeout."""
REHEARSAL_SERVE_LIMIT = 15.0
"""`ajhost check`: a worker must be ready to subscribe within this. A reload gives it `SERVE_LIMIT`."""
REHEARSAL_LEAVE_LIMIT = 5.0
"""`ajhost check`: a worker must end within this."""
