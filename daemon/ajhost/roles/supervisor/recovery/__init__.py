"""Recovery: what the supervisor does with the requests and the connection of a process that cannot answer.

The process is a worker that has died, a worker that hangs, or one of an earlier start. `remains.Remains` has its
ledger, a duplicate of its connection, and four facts about it (`core/recovery_rules.py`):

- the owner is only stopped: a hanging worker, which goes on afterwards and keeps what it has started;
- its shared queue is gone, and with it the tokens of requests that waited there;
- its supervisor is dead, which may have left a recovery unfinished;
- the server may not have read the replies that the owner had sent.

Only the facts differ: `core.recovery_rules.DISPOSITION` says for each state of an entry under which facts the request
is left, answered, requeued, or waits for the server. One procedure (`procedure.Recovery.recover`) handles one worker,
or all dead processes of earlier starts, in this order; the steps on a ledger are methods of
`answer_and_requeue.AnswerAndRequeue`:

1. Fence: the ledger says that the supervisor takes its connection over. If the supervisor dies from here on, the next
   start kills a stopped worker: its memory and its ledger may disagree.
2. Answer what may have started (`answer_started`). What the process had dequeued from another's ledger is
   claimed there, so that no process runs it again.
3. Requeue what is in the ledger and had not started (`requeue_entries`), the newest ledger first.
4. Requeue the requests whose tokens the process had received and not used (`requeue_tokens`).
5. Read the connection to its end (`connection_reader`): frames in the receive buffer, then in the kernel. The
   supervisor ends its side when another process is subscribed (`last_resort.LastResort`). A stopped worker does not
   wait long for the server: the rest of its connection gets a ledger of its own, recovered like a dead worker's.
6. Settle what had been sent (`confirm_sent`): nothing to do if the server has read it, else it is answered.
7. Mark the connection as drained. A stopped worker is resumed. `remains.RetiredLedgers` keeps a dead process's
   ledger until its last answer has left, and answers at the deadlines of what waits in it.

A request is copied into the supervisor's own ledger (`standby.Standby`) before the original is revoked, and its token
is sent after that. An answer is in that ledger before its request is revoked. So a SIGKILL of the supervisor between
any two instructions loses nothing and runs nothing twice, and the next start may do the whole procedure again.

It begins on a worker's death (`recover_dead`), on a hang of a worker of this start or of an orphan (`recover_hung`,
`orphan.Orphan`), and for what earlier starts left as soon as its owner is dead (`previous_start.PreviousStart`).
"""
