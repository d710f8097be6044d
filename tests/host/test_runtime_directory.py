"""The runtime directory: taken only if it is ours, held as a whole, made again when somebody removes what is in it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from pathlib import Path

import pytest

from ajhost.roles.control_client import view
from tests.support import processes
from tests.support.factories import Enter, NewHost
from tests.support.host import Host
from tests.support.nats import NatsServer
from tests.support.program import run
from tests.support.router import Router, Verdict
from tests.support.waiting import until

NOBODY = 65534


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can play another user")
@pytest.mark.parametrize("what", ["their directory", "their link", "open to all", "open to its group", "a file"])
async def test_a_directory_that_others_have_a_hand_in_is_refused_and_untouched(
    nats_server: NatsServer, tmp_path: Path, new_host: NewHost, what: str
) -> None:
    host = new_host()
    aside = host.runtime.with_name(f"{host.runtime.name}.aside")
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (host.runtime / "lock").symlink_to(victim)
    (host.runtime / "state.json").symlink_to(victim)
    if what == "their directory":
        os.chown(host.runtime, NOBODY, NOBODY)
    elif what == "their link":
        host.runtime.rename(aside)
        host.runtime.symlink_to(aside)
        os.lchown(host.runtime, NOBODY, NOBODY)
    elif what == "a file":
        shutil.rmtree(host.runtime)
        host.runtime.write_text("")
    else:
        host.runtime.chmod(0o777 if what == "open to all" else 0o770)
    try:
        assert await host.run_to_end() == 70
        assert f"runtime.directory: {host.runtime}: found " in host.log_text()
        assert "allowed: " in host.log_text()
        assert victim.read_text() == "precious"
    finally:
        await host.destroy()
        if host.runtime.is_symlink() or host.runtime.is_file():
            host.runtime.unlink()
        shutil.rmtree(aside, ignore_errors=True)


async def test_links_and_pipes_in_it_are_not_followed(
    nats_server: NatsServer, tmp_path: Path, new_host: NewHost, enter: Enter
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    host = new_host()
    (host.runtime / "lock").symlink_to(victim)
    os.mkfifo(host.runtime / "state.json")
    await enter(host)
    assert victim.read_text() == "precious"
    assert {path.name.partition(".foreign-")[0] for path in host.runtime.glob("*.foreign-*")} == {
        "lock", "state.json",
    }  # fmt: skip


async def test_status_opens_neither_links_nor_pipes(host: Host) -> None:
    for name in ("state.json", "lock"):
        path = host.runtime / name
        kept = path.read_bytes()
        path.unlink()
        os.mkfifo(path)
        looked = await host.command("status", timeout=10.0)
        assert "Traceback" not in looked.stderr
        path.unlink()
        path.symlink_to("/etc/passwd")
        looked = await host.command("status", timeout=10.0)
        assert "root:" not in looked.stdout + looked.stderr
        path.unlink()
        path.write_bytes(kept)


async def test_a_link_of_our_own_is_followed(new_host: NewHost, router: Router) -> None:
    """As systemd makes one for a unit with a dynamic user."""
    host = new_host()
    real = host.runtime.with_name(f"{host.runtime.name}.real")
    host.runtime.rename(real)
    host.runtime.symlink_to(real)
    try:
        async with host:
            assert (await router.request("echo", b"x")).body == b"x"
            assert (await host.command("status")).status == 0
            assert (await host.reload()).status == 0
    finally:
        host.runtime.unlink(missing_ok=True)
        shutil.rmtree(real)


@pytest.mark.parametrize("what", ["files", "everything"])
async def test_what_a_cleaner_removes_is_made_again_and_every_worker_can_be_replaced(
    host: Host, router: Router, what: str
) -> None:
    before = host.workers()
    if what == "files":
        for path in [*host.runtime.glob("*"), *host.runtime.glob("ledger/*")]:
            if not path.is_dir():
                path.unlink()
    else:
        shutil.rmtree(host.runtime)
    line = await host.log("somebody has removed or changed files in")
    assert str(host.runtime) in line.text
    for pid in before.values():
        await processes.gone(pid)
    await host.log("the host's own ledger was removed")
    second = await run(*host.program, env=host.environment, cwd=host.directory)
    assert (second.status, "another ajhost runs here already" in second.stderr) == (70, True), second
    assert (await host.reload()).status == 0
    status = await host.command("status")
    assert (status.status, "its ledger file is gone: restart the host" in status.stdout) == (0, True), status
    assert (await asyncio.to_thread(view, host.runtime)).count == 2, "for those who may only look"
    host.kill(0)
    await host.log("worker 0", since=0)
    answers = [await router.request("echo", b"%d" % number) for number in range(20)]
    assert {answer.verdict for answer in answers} == {Verdict.COMPLETE}


async def test_a_state_file_that_somebody_has_damaged_is_written_anew(host: Host) -> None:
    state = host.runtime / "state.json"
    whole = state.read_bytes()
    for damage in (b"", b"{{{", b'{"pid": 1, "routes": 7}'):
        host.send_signal(signal.SIGSTOP)  # nobody writes it anew meanwhile
        state.write_bytes(damage)
        shown = (await host.command("status")).stdout
        host.send_signal(signal.SIGCONT)
        assert "2 slots serve" in shown, "it does not say that none does"
        await until(lambda: state.read_bytes() == whole)
    await host.log("somebody has removed or changed files in")
    assert (await host.command("status")).status == 0


async def test_commands_mean_the_host_of_their_settings(tmp_path: Path, host: Host) -> None:
    other = tmp_path / "other.toml"
    shutil.copy(host.file, other)
    link = tmp_path / "link.toml"
    link.symlink_to(host.file)
    for command, status in (("reload", 1), ("status", 3), ("attempts", 3)):
        program = (*host.program[:3], command, "-c")
        result = await run(*program, str(other), env=host.environment)
        assert result.status == status, result
        assert result.stderr == f"the host on {host.runtime} runs on {host.file}, not on {other}\n"
        result = await run(*program, str(link), env=host.environment)
        assert result.status == 0, result
