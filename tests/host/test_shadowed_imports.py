"""Modules of the application may bear any name: what the host needs is imported before user code's path is set."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from nacl.signing import SigningKey

from ajhost.protocol.signature import message
from ajhost.protocol.task_record import read_task
from tests.host.test_nats_access import _nkey, _secret
from tests.support.factories import StartHost, StartRouter, StartServer
from tests.support.router import Verdict, headers_of, new_id, task_json

HANDLERS = """
async def echo(task):
    return task.payload

def echo_sync(task):
    return {"payload": task.payload.decode()}

async def error(task):
    raise ValueError(task.id)
"""
SHADOW = "raise RuntimeError(f'the host imports {__name__} late')\n"
_FOREIGN = (
    "_cffi_backend", "aiohttp", "cffi", "click", "fast_mail_parser", "nacl", "nats", "nkeys", "orjson", "pydantic",
    "setproctitle", "systemd", "uvicorn", "uvloop",
)  # fmt: skip
_NEVER = sys.builtin_module_names


@pytest.mark.parametrize("preload", [True, False])
async def test_a_host_serves_beside_modules_of_every_name(
    tmp_path: Path, start_server: StartServer, start_host: StartHost, start_router: StartRouter, preload: bool
) -> None:
    names = (sys.stdlib_module_names | set(_FOREIGN)) - set(_NEVER)
    modules = dict.fromkeys(sorted(names), SHADOW) | {"tasks_of_shop": HANDLERS}
    seed, public = _nkey()
    key = SigningKey.generate()
    server = await start_server(config=f"authorization {{ users = [{{nkey: {public}}}] }}")
    host = await start_host(
        nats=server.url.replace("127.0.0.1", "localhost"),
        modules=modules,
        handlers={name: f"tasks_of_shop:{name}" for name in ("echo", "echo_sync", "error")},
        sections={
            "nats": {"nkey": _secret(tmp_path / "seed.nk", seed)},
            "signature": {"keys": [key.verify_key.encode().hex()]},
            "python": {"preload": preload},
        },
    )
    router = await start_router(nkeys_seed=str(tmp_path / "seed.nk"))

    async def signed(kind: str) -> tuple[Verdict, str]:
        unsigned = task_json(kind, b"x", signature="00" * 64)
        signature = key.sign(message(read_task(unsigned))).signature.hex()
        request = await router.send_raw(
            f"CHORIA_AJ.H.T.{kind}",
            unsigned.replace(b"00" * 64, signature.encode()),
            headers_of(4_000_000_000),
            id=new_id(),
        )
        reply = await router.reply(request)
        return reply.verdict, reply.text or reply.body.decode()

    assert await signed("echo") == (Verdict.COMPLETE, "x")
    assert await signed("echo_sync") == (Verdict.COMPLETE, '{"payload":"x"}')
    assert (await signed("error"))[1].startswith("handler error: ValueError: ")
    assert (await router.request("echo", b"x")).text == "bad request: the task is not signed"
    host.kill(0)
    await host.log("serves, generation 1")
    assert await signed("echo") == (Verdict.COMPLETE, "x")
    assert "the host imports" not in host.log_text()
