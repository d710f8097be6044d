"""Verifies and makes task signatures: ed25519 over the fields that decide what a task does. Says why a task is not
trusted: not signed by a key of the settings, older than `signature.max_age`, or past its own deadline.

A client that may publish on the handlers' subjects reaches a host without a router, so the host verifies signatures
itself. The message is that of `signatureMessage` in asyncjobs v0.3.0, task.go.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

from ajhost.protocol import timestamps
from ajhost.protocol.task_record import TaskRecord

KEY_BYTES = 32
"""Length of an ed25519 public key, and of the seed of a private one."""


def read_key(text: str) -> bytes:
    """Reads the public key in `text` (hex, white space around it ignored). Raises ValueError that says what is wrong.

    About half of all private keys are no valid public keys: this finds about half of the seeds in the place of a key.
    """
    from nacl.bindings import crypto_core_ed25519_is_valid_point

    key = _read(text, "a verification key")
    if not crypto_core_ed25519_is_valid_point(key):  # of low order, too: its signatures can be forged
        raise ValueError("a verification key must be a public key of ed25519, and no seed")
    return key


def read_seed(text: str) -> bytes:
    """Reads the private key in `text`, of the same form. Raises ValueError that says what is wrong, and quotes none."""
    return _read(text, "a signing seed")


def _read(text: str, what: str) -> bytes:
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        raise ValueError(f"{what} must be hexadecimal") from None
    if len(key) != KEY_BYTES:
        raise ValueError(f"{what} must have {KEY_BYTES} bytes ({2 * KEY_BYTES} hex digits), found {len(key)}")
    return key


def sign(task: TaskRecord, seed: bytes) -> str:
    """Signs a task as a producer with that seed does. See `message` for what is raised."""
    from nacl.signing import SigningKey

    return SigningKey(seed).sign(message(task)).signature.hex()


def message(task: TaskRecord) -> bytes:
    """Returns the bytes that a producer signs for `task`.

    Raises ValueError without a queue, which producers refuse to sign, and for malformed times. Raises it as well where
    another task has the same message: for a `:` in id or queue, and for a time beyond the years 1677 to 2262, since a
    time 584 years earlier or later gives the same number.
    """
    if not task.queue:
        raise ValueError("a task without a queue cannot be signed")
    if ":" in task.id or ":" in task.queue:
        raise ValueError("with a ':' in its id or queue it would be good for other tasks too")
    deadline = task.deadline_ns
    parts = (
        task.id,
        task.queue,
        task.type,
        str(task.max_tries),
        str(_unix_nano(task.created_ns)),
        str(0 if deadline is None else _unix_nano(deadline)),
        base64.b64encode(task.payload).decode(),
    )
    return ":".join(parts).encode()


def distrust(task: TaskRecord, keys: Sequence[bytes], max_age_ns: int, now_ns: int) -> str | None:
    """Says why a task is not trusted; None if it is signed and in time. `max_age_ns`: 0 for no limit.

    A router starts no task past its deadline (asyncjobs v0.3.0, client.go), so such a task is a replay.
    """
    if (reason := verify(task, keys)) is not None:
        return reason
    if task.deadline_ns is not None and task.deadline_ns < now_ns:
        return f"the task's deadline passed {(now_ns - task.deadline_ns) / timestamps.SECOND:.0f} s ago"
    if max_age_ns and task.created_ns < now_ns - max_age_ns:
        age, limit = (now_ns - task.created_ns) / timestamps.SECOND, max_age_ns / timestamps.SECOND
        return f"the task was created {age:.0f} s ago, signature.max_age is {limit:g} s"
    return None


def verify(task: TaskRecord, keys: Sequence[bytes]) -> str | None:
    """Returns None if one of the raw public `keys` (32 bytes each) signed `task`, else why it is not trusted."""
    from nacl.exceptions import BadSignatureError
    from nacl.signing import VerifyKey

    if not task.signature:
        return "the task is not signed"
    try:
        signature = bytes.fromhex(task.signature)
        signed = message(task)
    except ValueError as error:
        return f"the task's signature cannot be checked: {error}"
    if len(signature) != 64:
        return f"the task's signature has {len(signature)} bytes, not 64"
    for key in keys:
        try:
            VerifyKey(key).verify(signed, signature)
        except BadSignatureError:
            continue
        return None
    return "the task's signature is of none of the configured keys"


def _unix_nano(nanoseconds: int) -> int:
    """Returns Go's `UnixNano`, which wraps at 64 bits. Go's zero time, the only one allowed to wrap, becomes 1754."""
    wrapped = (nanoseconds + (1 << 63)) % (1 << 64) - (1 << 63)
    if wrapped != nanoseconds and nanoseconds != timestamps.ZERO_TIME:
        raise ValueError("its created or deadline is in no router's years, 1677 to 2262")
    return wrapped
