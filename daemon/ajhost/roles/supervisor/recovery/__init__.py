"""Recovery: what becomes of the requests of a process that cannot answer.

A worker has died or hangs, or a process of an earlier start has left its ledger. For each request that it held, one
question: leave it, answer it, run it elsewhere, or wait for the server to confirm its reply? `core/recovery.py` decides
by the state of its entry and four facts; this package carries it out, always in this order:

1. Answer what may have started, at once (`takeover.answer_started`), and claim in its first ledger what was pulled.
2. Requeue the tokens that the process had received and not used (`takeover.requeue_tokens`).
3. Requeue what had not started and lies in the ledger (`takeover.requeue_entries`).
4. Drain its connection, of which the supervisor has a duplicate: frames in the receive buffer, then in the kernel, to
   its end (`takeover.requeue_waiting`). If the server does not end it in time, the rest becomes a ledger of its own.
5. Confirm or answer what had been sent (`takeover.confirm_sent`), and mark the connection as drained.
6. Keep the ledger until the last answer has left, then remove it (`retired.RetiredLedgers`).

A request is copied into the supervisor's own ledger (`standby.Standby`) before the original is revoked, and its token
goes out after that. So a SIGKILL between any two steps loses nothing, and nothing that had started runs twice.

`coordinator.Recovery` says when: on a death, on a hang (the worker is stopped meanwhile, and goes on), at each tick.
`previous_start.PreviousStart` says in which order the ledgers of earlier starts are recovered; their workers that still
live are `orphan.Orphan`.
"""
