"""The stable words with which an error text begins: people and alert rules match them. They never change. What follows
the word is composed by the module that finds the reason.
"""

from __future__ import annotations

from enum import Enum


class FailureReason(Enum):
    """Why a request has no result. The value is the word; `docs/operate.md` has the same table for operators."""

    #: The handler raised an exception, or returned what cannot be sent.
    HANDLER_ERROR = "handler error"
    #: The payload is not what the handler takes. The task ends, since it would not be at the next try either.
    INVALID_PAYLOAD = "invalid payload"
    #: The handler returned what JSON cannot express. The task ends, since the next try would return the same.
    INVALID_RESULT = "invalid result"
    #: The deadline of the task or the timeout of its route passed before the handler had ended, or begun.
    DEADLINE_EXCEEDED = "deadline exceeded"
    #: The process died while it ran the task, or before the server had its reply.
    WORKER_DIED = "worker died"
    #: The host has no room for one more request: of its backlog, its ledger, or its threads.
    OVERLOADED = "overloaded"
    #: The host stopped, and the drain timeout passed, before the task ended or began.
    DRAINING = "draining"
    #: An operator has cancelled the task.
    CANCELLED = "cancelled"
    #: The request is no task, is larger than the host can hold, or is not signed as the settings demand.
    BAD_REQUEST = "bad request"
    #: No route of this host has a handler for the type of the task.
    UNKNOWN_TASK_TYPE = "unknown task type"
    #: The server did not take the reply: the host's user lacks the permission, or the server takes fewer bytes.
    REPLY_REFUSED = "reply refused"
    #: The host itself failed: a fault of its own, or of code that the handlers brought into its process.
    HOST_ERROR = "host error"

    def text(self, detail: str) -> str:
        """Returns the error text: the word, a colon, and `detail`."""
        return f"{self.value}: {detail}"


OTHER = "other"
_R = FailureReason
_COUNTED = (
    _R.HANDLER_ERROR, _R.DEADLINE_EXCEEDED, _R.WORKER_DIED, _R.OVERLOADED, _R.DRAINING, _R.BAD_REQUEST,
    _R.UNKNOWN_TASK_TYPE, _R.HOST_ERROR, _R.INVALID_RESULT, _R.INVALID_PAYLOAD, _R.CANCELLED, _R.REPLY_REFUSED,
)  # fmt: skip
REASONS = (OTHER, *(reason.value for reason in _COUNTED))
"""The words with which texts of answers begin, in the order of their counters; `other` is for texts without one.
Words are added at the end only: files of statistics outlive an upgrade.
"""


def reason_of(text: str) -> str:
    """Returns the stable word with which the text of an answer begins; `other` for a text without one."""
    word = text.partition(":")[0]
    return word if word in REASONS else OTHER
