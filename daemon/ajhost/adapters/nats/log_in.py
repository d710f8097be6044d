"""The log-in: nats-py's CONNECT, with our credentials and the server's nonce signed; then the answer to a PING.
The text of a refusal says whether the JWT has expired, or is not valid yet.

A client object of nats-py serves one log-in and opens no connection: `adapters/nats/connection.py` does. This module
sets the attributes that `connect` takes from its arguments and from a server's INFO. They are private; tests fail when
a later nats-py renames them. Source: nats-py 2.16, `Client._connect_command`, `Client.connect`.
"""

from __future__ import annotations

import dataclasses
import errno
import time

from nats.aio.client import Client, RawCredentials

from ajhost.adapters.nats.credentials import LogInData
from ajhost.adapters.nats.interfaces import error_text
from ajhost.adapters.nats.transport import LedgerTransport
from ajhost.core.connection_table import ConnectionFailed, Lost, Refused
from ajhost.core.server_errors import reason_of
from ajhost.core.server_pool import Server
from ajhost.ledger.connection_status import Reason
from ajhost.protocol.frames import FrameError
from ajhost.protocol.server_info import InfoError, ServerInfo


async def log_in(
    transport: LedgerTransport, server: Server, info: ServerInfo, data: LogInData, name: str
) -> ConnectionFailed | None:
    """Logs in with `data` at a server that has sent `info`; None when the server has accepted."""
    try:
        transport.out.command(connect_line(info, data, name) + b"PING\r\n")
        await transport.out.drain()
        answer = await transport.read_answer()
    except (InfoError, FrameError) as error:
        return Lost(Reason.PROTOCOL, f"{server}: {error}")
    except OSError as error:
        return lost(server, error)
    if not answer.startswith(b"-ERR"):
        return None
    # an answer to our credentials, whatever its text
    failed = refusal(server, error_text(answer), Reason.AUTHORIZATION)
    why = data.creds.why_not_valid(time.time()) if data.creds is not None else ""
    return dataclasses.replace(failed, text=f"{failed.text}; {why}") if why else failed


def connect_line(info: ServerInfo, data: LogInData, name: str) -> bytes:
    """Returns CONNECT, with the configured credentials.

    It has them even if INFO does not demand any: a server with `no_auth_user` never does (nats-server 2.15,
    `configureAuthorization`), and logs a client without credentials in as that user, perhaps of another account.
    """
    client = Client()
    client.options = {
        "verbose": False,
        "pedantic": False,
        "user": data.user,
        "password": data.password,
        "token": data.token,
        "name": name,
        "no_echo": False,
    }
    client._server_info = {"headers": info.headers}
    if info.nonce:  # nats-py would sign an empty nonce as well
        client._server_info["nonce"] = info.nonce
    client._auth_configured = True
    if data.creds is not None or data.seed is not None:
        client._user_credentials = RawCredentials(data.creds.text()) if data.creds is not None else None
        client._nkeys_seed_str = data.seed
        client._setup_nkeys_connect()
    return client._connect_command()


def refusal(server: Server, text: str, unknown: Reason) -> ConnectionFailed:
    """Returns the event for a server's `-ERR` in place of a log-in. `unknown`: the reason if its text is not known."""
    reason = reason_of(text) or unknown
    kind = Refused if reason in (Reason.TLS, Reason.AUTHORIZATION, Reason.LIMIT) else Lost
    return kind(reason, f"{server}: {text}")


def lost(server: Server, error: OSError) -> ConnectionFailed:
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return Lost(Reason.RESOURCES, (error.strerror or "").lower())
    return Lost(Reason.ENDED, f"{server}: {(error.strerror or str(error)).lower()}")
