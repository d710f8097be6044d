"""The log-in: nats-py's CONNECT, with our credentials and the server's nonce signed; then the answer to a PING.

A client object of nats-py serves one log-in and opens nothing: the connection is ours (`adapters/nats/connection.py`).
What it takes from the arguments of `connect` and from a server's INFO is put into it. Its names are private; the tests
say when a later nats-py has others. Source: nats-py 2.16, `Client._connect_command`, `Client.connect`.
"""

from __future__ import annotations

from nats.aio.client import Client, RawCredentials

from ajhost.adapters.nats.credentials import LogInData
from ajhost.adapters.nats.interfaces import ServerRefused, error_text
from ajhost.adapters.nats.transport import LedgerTransport
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
    """CONNECT, with the credentials that there are.

    They are shown to a server that does not ask for any: one with `no_auth_user` asks nobody (nats-server 2.15,
    `configureAuthorization`), and takes whoever shows none for that user, of another account perhaps.
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
    if info.nonce:  # nats-py signs one that is there, an empty one as well
        client._server_info["nonce"] = info.nonce
    client._auth_configured = True
    if data.creds is not None or data.seed is not None:
        client._user_credentials = RawCredentials(data.creds.text()) if data.creds is not None else None
        client._nkeys_seed_str = data.seed
        client._setup_nkeys_connect()
    return client._connect_command()
