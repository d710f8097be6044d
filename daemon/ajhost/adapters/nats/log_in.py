"""The log-in: CONNECT with our credentials and the server's nonce signed, then the answer to a PING behind it.

Not by nats-py: running its client copies 0.8 MB of the template's pages into each worker, and importing it is the
largest part of the template's imports. Source: NATS client protocol, `CONNECT`. Which of several credentials is shown
is as in nats-py 2.16, `Client._connect_command`.
"""

from __future__ import annotations

import orjson

from ajhost import __version__
from ajhost.adapters.nats.credentials import LogInData
from ajhost.adapters.nats.interfaces import ServerRefused, error_text
from ajhost.adapters.nats.transport import LedgerTransport
from ajhost.protocol.credentials import public_key, sign
from ajhost.protocol.server_info import ServerInfo


async def log_in(transport: LedgerTransport, info: ServerInfo, data: LogInData, name: str) -> None:
    """Logs in with `data` at a server that has sent `info`; returns when the server has accepted.

    :raises ServerRefused: when it does not, with its own text. :raises ConnectionError: when it hangs up.
    """
    transport.out.command(connect_line(info, data, name) + b"PING\r\n")
    await transport.out.drain()
    answer = await transport.read_answer()
    if answer.startswith(b"-ERR"):
        raise ServerRefused(error_text(answer))


def connect_line(info: ServerInfo, data: LogInData, name: str) -> bytes:
    """CONNECT. A server that asks for no credentials is shown none."""
    options: dict[str, object] = {
        "verbose": False,
        "pedantic": False,
        "lang": "python",
        "version": __version__,
        "protocol": 1,
        "name": name,
        "echo": True,
        "headers": info.headers,
        "no_responders": info.headers,
    }
    if info.auth_required:
        options |= {key: value for key, value in _shown(info.nonce, data).items() if value is not None}
    return b"CONNECT %b\r\n" % orjson.dumps(options)


def _shown(nonce: str | None, data: LogInData) -> dict[str, str | None]:
    seed = data.creds.seed if data.creds is not None else data.seed
    if nonce is not None and seed is not None:
        signed = {
            "sig": sign(seed, nonce),
            "auth_token": data.token,
        }  # a token may stand beside them, for a callout
        return signed | ({"nkey": public_key(seed)} if data.creds is None else {"jwt": data.creds.jwt})
    if data.user is not None and data.password is not None:
        return {"user": data.user, "pass": data.password}
    return {"auth_token": data.token}
