"""Recovery: what becomes of the requests and of the connection of a process that cannot answer.

A worker has died, or hangs, or a process of an earlier start has left its ledger. What it left is one object
(`remains.Remains`): its ledger, a duplicate of its connection, and four facts (`core/recovery_rules.py`):

- the owner is only stopped: a hanging worker, which goes on afterwards and keeps what it has started;
- the shared queue of its time is gone, and with it the tokens of what waited there;
- the supervisor of its time is dead, so what that had begun may be half done;
- it is not certain that the server has read the replies that the owner had sent.

The facts alone make the difference: `core.recovery_rules.DISPOSITION` says for each state of an entry and the facts
whether the request is left, answered, requeued or waits for the server. One procedure (`procedure.Recovery.recover`)
takes all remains that belong together, in this order; `answer_and_requeue.Takeover` does its steps on a ledger:

1. Fence: the ledger says that its connection is being taken over. A worker whose supervisor dies from here on must not
   go on, and the next start kills it.
2. Answer what may have started (`Takeover.answer_started`). What the process had pulled from another's ledger is
   claimed there, so that nobody runs it again.
3. Requeue what lies in the ledger and had not started (`Takeover.requeue_entries`), the newest ledger first.
4. Requeue the requests whose tokens the process had received and not used (`Takeover.requeue_tokens`).
5. Read the connection to its end (`connection_reader`): frames in the receive buffer, then in the kernel. Our side is
   ended when another process is subscribed (`last_resort.LastResort`). If the server does not end it in time, the
   rest gets a ledger of its own, and that is recovered like a dead worker's, so that a stopped worker need not wait.
6. Settle what had been sent (`Takeover.confirm_sent`): nothing to do if the server has read it, else it is answered.
7. Mark the connection as drained. The ledger of a dead process is kept until its last answer has left
   (`retired_ledgers.RetiredLedgers`, which also keeps the deadlines of what waits in it); a stopped worker is resumed.

A request is copied into the supervisor's own ledger (`standby.Standby`) before the original is revoked, its token goes
out after that, and an answer is in that ledger before its request is revoked. So a SIGKILL of the supervisor between
any two instructions loses nothing, runs nothing twice, and the whole procedure may be done again.

It begins on a worker's death (`recover_dead`), on a hang (`recover_hung`, for a worker of this start and for an
orphan), and for what earlier starts left as soon as its owner is dead (`previous_start.PreviousStart` finds that;
workers of theirs that still live are `orphan.Orphan`).
"""
