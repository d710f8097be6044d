"""Credentials as they stand in files and URLs: read whole at each connect, told by name when they cannot be used."""

from __future__ import annotations

import os
import time
from pathlib import Path

import nkeys
import pytest

from tests.connection.conftest import StartWatched
from tests.support.factories import NewHost, StartHost, StartRouter, StartServer
from tests.support.operator_mode import Identity, Operator, creds, user_identity, write_secret
from tests.support.reported_state import subscribed_again
from tests.support.sweep import sweep

HANDLERS = {"echo": "echo"}
BACK = 6.0


@pytest.mark.parametrize(
    "what", sweep(["empty", "half", "gone", "a directory", "a FIFO", "not text"], "half", "a FIFO")
)
async def test_credentials_that_cannot_be_read_at_a_reconnect_are_told_and_the_last_good_ones_used(
    tmp_path: Path, start_watched: StartWatched, what: str
) -> None:
    operator = Operator()
    whole = operator.user("host")
    file = write_secret(tmp_path / "host.creds", whole)
    server, host, _ = await start_watched(HANDLERS, config=operator.config(), nats={"creds": file})
    lines = len(host.output.lines)
    match what:
        case "empty":
            file.write_text("")
        case "half":
            file.write_text(whole[: len(whole) // 2])
        case "gone":
            file.unlink()
        case "a directory":
            file.unlink()
            file.mkdir()
        case "a FIFO":
            file.unlink()
            os.mkfifo(file)
        case _:
            file.write_bytes(os.urandom(500))
    await server.restart()
    since = time.monotonic()
    await host.log(lambda line: str(file) in line and "WARNING" in line, since=lines, timeout=BACK)
    await subscribed_again(server, 2, BACK, since=since)
    assert len(host.output.lines) - lines < 40


async def test_credentials_of_every_usual_shape_work(
    tmp_path: Path, start_server: StartServer, start_host: StartHost
) -> None:
    operator = Operator()

    def shapes() -> dict[str, str]:
        text = operator.user("host")  # another user for each, so that none gets in with what was read before
        whole = text[: text.index("------END USER NKEY SEED------")] + "------END USER NKEY SEED------"
        return {
            "CRLF": text.replace("\n", "\r\n"),
            "blank lines": text.replace("\n", "\n\n"),
            "indented": "".join(f"    {line}\n" for line in text.splitlines()),
            "no final newline": whole,
            "BOM": "\ufeff" + text,
            "trailing spaces": text.replace("\n", "  \n"),
            "only the two": "\n".join(line for line in text.splitlines() if line[:2] in ("ey", "SU", "--")),
        }

    file = write_secret(tmp_path / "host.creds", shapes()["CRLF"])
    server = await start_server(config=operator.config(), monitored=True)
    host = await start_host(handlers=HANDLERS, sections={"nats": {"creds": file}})
    for shape in shapes():
        write_secret(file, shapes()[shape])
        await server.restart()
        await subscribed_again(server, 2, BACK)
        assert not host.output.having(str(file)), shape


@pytest.mark.parametrize("fault", ["another's seed", "no JWT", "no seed", "empty", "an account's seed", "a broken JWT"])
async def test_credentials_that_cannot_work_are_told_by_name_and_never_shown(
    tmp_path: Path, start_server: StartServer, new_host: NewHost, fault: str
) -> None:
    operator, user = Operator(), user_identity()
    text = operator.user("host", identity=user)
    token = text.splitlines()[1]
    texts = {
        "another's seed": creds(token, user_identity().seed),
        "no JWT": creds("", user.seed),
        "no seed": creds(token, ""),
        "empty": "",
        "an account's seed": creds(token, Identity(nkeys.PREFIX_BYTE_ACCOUNT).seed),
        "a broken JWT": creds(token[:-40], user.seed),
    }
    file = write_secret(tmp_path / "host.creds", texts[fault])
    await start_server(config=operator.config())
    host = new_host(handlers=HANDLERS, sections={"nats": {"creds": file}})
    result = await host.command("check")
    assert result.status != 0, result
    assert str(file) in result.stderr + result.stdout
    for line in texts[fault].splitlines():
        if len(line) > 40 and " " not in line:
            assert line not in result.stderr + result.stdout


FORMS = {
    "a percent sign": ("p%ss", "p%25ss"),
    "an at sign": ("p@ss", "p%40ss"),
    "a colon and a slash": ("p:s/s", "p%3As%2Fs"),
    "a plus": ("p+ss", "p+ss"),
    "a plus, encoded": ("p+ss", "p%2Bss"),
    "umlauts": ("pässwört", "p%C3%A4ssw%C3%B6rt"),
    "a space": ("p ss", "p%20ss"),
}


async def test_a_secret_in_a_url_means_what_it_means_in_go(start_server: StartServer, start_host: StartHost) -> None:
    users = [f'{{user: "h@st{n}", password: "{password}"}}' for n, (password, _) in enumerate(FORMS.values())]
    config = f"authorization {{ users = [{', '.join(users)}, {{user: r, password: r}}] }}"
    server = await start_server(config=config)
    sections = {"nats": {"user": "r", "password": "r"}}
    host = await start_host(handlers=HANDLERS, sections=sections)
    for number, (form, (_, encoded)) in enumerate(FORMS.items()):
        url = f"nats://h%40st{number}:{encoded}@127.0.0.1:{server.port}"
        host.configure(HANDLERS, {"nats": {"servers": [url]}})
        result = await host.command("call", "echo", "x", "--timeout", "5")
        assert result.status == 0, (form, result)


async def test_a_token_in_a_url_means_what_it_means_in_go(
    start_server: StartServer, start_host: StartHost, start_router: StartRouter
) -> None:
    config = 'authorization { token: "se:s@me/" }'
    server = await start_server(config=config)
    await start_host(nats=f"nats://se%3As%40me%2F@127.0.0.1:{server.port}", handlers=HANDLERS)
    router = await start_router(token="se:s@me/")
    assert (await router.request("echo", b"x")).body == b"x"
