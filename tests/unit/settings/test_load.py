"""Settings: files and drop-ins to values, and everything that is wrong with them at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from ajhost.settings.errors import Problem, SettingsError
from ajhost.settings.load import load
from ajhost.settings.sections import HandlerSettings, Settings, SignatureSettings, WorkerSettings

HANDLER = '[handlers.echo]\ntarget = "app:echo"\n'
SEED = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY"
JWT = (
    "eyJhbGciOiAibm9uZSJ9."
    "eyJzdWIiOiAiVURYVTRSQ1NKTlpPSVFIWk5XWEhYT1JEUFJUR05KQUhBSEZSR1pORUVKQ1BRVFQyTTdOTENORjQifQ."
    "c2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lnc2lncw"
)
CREDS = f"""-----BEGIN NATS USER JWT-----
{JWT}
------END NATS USER JWT------
-----BEGIN USER NKEY SEED-----
{SEED}
------END USER NKEY SEED------
"""
KEY = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def load_text(directory: Path, text: str, environ: Mapping[str, str] | None = None) -> Settings:
    return load(write(directory / "ajhost.toml", text), environ or {})


def problems_of(directory: Path, text: str, environ: Mapping[str, str] | None = None) -> dict[str, Problem]:
    """The problems by their keys."""
    with pytest.raises(SettingsError) as caught:
        load_text(directory, text, environ)
    assert str(caught.value) == "\n".join(str(problem) for problem in caught.value.problems)
    return {problem.key: problem for problem in caught.value.problems}


def problem_of(directory: Path, text: str, environ: Mapping[str, str] | None = None) -> Problem:
    """The only problem."""
    (problem,) = problems_of(directory, text, environ).values()
    return problem


def test_one_handler_is_enough_and_the_rest_are_defaults(directory: Path) -> None:
    settings = load_text(directory, HANDLER)
    assert settings == Settings(directory / "ajhost.toml", (HandlerSettings("echo", "app:echo"),))


def test_every_key_reaches_its_value(directory: Path) -> None:
    (directory / "app").mkdir()
    write(directory / "pw", "from a file\n")
    write(directory / "keys", f"{KEY.upper()}\n")
    settings = load_text(
        directory,
        f"""
        [nats]
        servers = ["nats://a:1", "tls://u:p@b", "nats://[::1]:4222"]
        queue_group = "g.h"
        user = "me"
        password_file = "pw"
        inbox_prefix = "_INBOX.me"
        reply_prefixes = ["_INBOX"]
        discover = false
        ping_interval = 1
        ping_timeout = 3.5
        [nats.tls]
        first = true
        [python]
        path = ["app", "/"]
        interpreter = "{sys.executable}"
        preload = false
        import_timeout = 3
        lifespan = "acme.app:lifespan"
        middleware = ["acme.app:traced"]
        start_timeout = 4
        stop_timeout = 0
        [workers]
        count = 3
        concurrency = 5
        backlog = 0
        kill_grace = 0
        drain_timeout = 1.5
        max_tasks = 9
        max_memory = "1.5G"
        default_timeout = 10
        [handlers."email:"]
        target = "acme.mail:Sender.send"
        timeout = 3
        concurrency = 2
        unwrap = true
        max_crashes = 4
        host_concurrency = 9
        [handlers.""]
        target = "acme:any"
        [signature]
        keys = ["{KEY}"]
        key_file = "keys"
        max_age = 60
        [runtime]
        directory = "/run/x/"
        [log]
        level = "debug"
        [http]
        listen = "[::1]:9464"
        """,
    )
    nats = settings.nats
    assert nats.servers == ("nats://a:1", "tls://u:p@b", "nats://[::1]:4222")
    assert (nats.queue_group, nats.inbox_prefix) == ("g.h", "_INBOX.me")
    assert (nats.user, nats.password, nats.password_file) == (
        "me",
        "from a file",
        directory / "pw",
    )
    assert (nats.discover, nats.ping_interval, nats.ping_timeout) == (False, 1.0, 3.5)
    assert nats.tls is not None
    assert nats.tls.first
    assert settings.python.path == (directory / "app", Path("/"))
    assert settings.python.interpreter == Path(sys.executable)
    assert not settings.python.preload
    assert settings.python.import_timeout == 3.0
    assert (settings.python.lifespan, settings.python.middleware) == (
        "acme.app:lifespan",
        ("acme.app:traced",),
    )
    assert (settings.python.start_timeout, settings.python.stop_timeout) == (4.0, 0.0)
    assert settings.workers == WorkerSettings(3, 5, 0, 0.0, 1.5, 9, 3 << 29, 10.0)
    assert settings.handlers == (
        HandlerSettings("email:", "acme.mail:Sender.send", 3.0, 2, True, 4, 9),
        HandlerSettings("", "acme:any"),
    )
    assert settings.signature == SignatureSettings((KEY,), 60.0)
    assert nats.reply_prefixes == ("_INBOX",)
    assert settings.runtime.directory == Path("/run/x")
    assert settings.log.level == "debug"
    assert settings.http is not None
    assert settings.http.listen == "[::1]:9464"


def test_auto_is_one_worker_for_each_usable_cpu(directory: Path) -> None:
    settings = load_text(directory, HANDLER + '[workers]\ncount = "auto"\n')
    assert settings.workers.count == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ('"0"', 0),
        ("0", 0),
        ('"512M"', 1 << 29),
        ('"1.5G"', 3 << 29),
        ("1048576", 1 << 20),
        ('"2048K"', 1 << 21),
    ],
)
def test_sizes_are_powers_of_1024(directory: Path, text: str, size: int) -> None:
    assert load_text(directory, f"{HANDLER}[workers]\nmax_memory = {text}").workers.max_memory == size


# drop-ins


def test_drop_ins_are_merged_in_the_order_of_their_names(directory: Path) -> None:
    write(directory / "conf.d" / "20.toml", "[workers]\ncount = 2\n[handlers.more]\ntarget = 'm:f'")
    write(directory / "conf.d" / "10.toml", "[workers]\ncount = 1\nbacklog = 7")
    write(directory / "conf.d" / "notes.txt", "no TOML at all")
    write(directory / "conf.d" / ".30.toml", "nor an editor's leftovers")
    settings = load_text(directory, HANDLER + "[workers]\ncount = 9\nconcurrency = 3")
    assert settings.workers == WorkerSettings(count=2, concurrency=3, backlog=7)
    assert [handler.route for handler in settings.handlers] == ["echo", "more"]


def test_a_problem_names_the_file_that_set_the_key(directory: Path) -> None:
    drop_in = write(directory / "conf.d" / "10.toml", "[workers]\ncount = 0")
    found = problems_of(directory, HANDLER + "[workers]\ncount = 2\nbacklog = -1")
    assert found["workers.count"].file == drop_in
    assert found["workers.backlog"].file == directory / "ajhost.toml"


# every problem at once


def test_all_problems_of_all_files_are_told_at_once(directory: Path) -> None:
    broken = write(directory / "conf.d" / "10.toml", "[workers\n")
    bad = write(directory / "conf.d" / "20.toml", "[log]\nlevel = 'loud'")
    found = problems_of(
        directory,
        """
        [nats]
        servers = ["ws://x"]
        creds = "nowhere"
        [python]
        interpreter = "/no/such/python"
        [workers]
        cuont = 3
        [handlers."a b"]
        target = "no function"
        """,
    )
    assert set(found) == {
        "line 1, column 9",
        "log.level",
        "nats.servers[0]",
        "nats.creds",
        "python.interpreter",
        "workers.cuont",
        'handlers."a b"',
        'handlers."a b".target',
    }
    assert found["line 1, column 9"].file == broken
    assert found["log.level"].file == bad


def test_a_problem_is_one_line_with_file_key_found_and_allowed(directory: Path) -> None:
    problem = problem_of(directory, HANDLER + "[workers]\ncount = 0")
    expected = f'{directory}/ajhost.toml: workers.count: found 0, allowed: "auto" or a whole number, 1 to 1024'
    assert str(problem) == expected


def test_no_handlers_is_a_problem_that_says_what_is_needed(directory: Path) -> None:
    for text in ("", "[handlers]"):
        problem = problem_of(directory, text)
        assert (problem.key, problem.found) == ("handlers", "nothing")
        assert 'at least one table [handlers."<route>"]' in problem.allowed


def test_a_handler_without_target_is_a_problem(directory: Path) -> None:
    problem = problem_of(directory, "[handlers.echo]\ntimeout = 3")
    assert (problem.key, problem.found) == ('handlers."echo".target', "nothing")


def test_what_may_stand_in_a_broken_file_is_not_missed(directory: Path) -> None:
    assert problem_of(directory, "[handlers.echo]\ntarget =").key.startswith("line 2")


def test_a_route_without_quotes_is_explained(directory: Path) -> None:
    problem = problem_of(directory, '[handlers.email:new]\ntarget = "a:b"')
    assert problem.key == "line 1, column 16"
    assert '[handlers."email:new"]' in problem.allowed


@pytest.mark.parametrize(
    ("text", "key", "meant"),
    [
        ("[workers]\ncuont = 1", "workers.cuont", "workers.count"),
        ("[nats.tsl]\nfirst = true", "nats.tsl", "nats.tls"),
        ("[worker]\ncount = 1", "worker", "workers"),
        ("[python]\nconcurrency = 1", "python.concurrency", "workers.concurrency"),
        ("[handlers.x]\ntarget = 'a:b'\ntime_out = 1", 'handlers."x".time_out', 'handlers."x".timeout'),
    ],
)
def test_an_unknown_key_is_told_with_the_one_that_was_meant(directory: Path, text: str, key: str, meant: str) -> None:
    problem = problem_of(directory, HANDLER + text)
    assert (problem.key, problem.found) == (key, "an unknown key")
    assert problem.allowed.endswith(f"; did you mean {meant}?")


@pytest.mark.parametrize(
    ("section", "line"),
    [
        ("nats", "servers = []"),
        ("nats", 'servers = "nats://x"'),
        ("nats", 'queue_group = "a b"'),
        ("nats", 'inbox_prefix = "_INBOX.>"'),
        ("nats", 'inbox_prefix = "_INBOX."'),
        ("nats", 'user = ""'),
        ("nats", "tls = true"),
        ("python", 'preload = "yes"'),
        ("python", "import_timeout = 0"),
        ("python", "import_timeout = inf"),
        ("workers", "count = 1025"),
        ("workers", "count = 1.5"),
        ("workers", 'count = "many"'),
        ("workers", "concurrency = 0"),
        ("workers", "concurrency = true"),
        ("workers", "backlog = -1"),
        ("workers", "kill_grace = -0.1"),
        ("workers", "drain_timeout = nan"),
        ("workers", 'drain_timeout = "30s"'),
        ("workers", "max_tasks = -1"),
        ("workers", 'max_memory = "512"'),
        ("workers", 'max_memory = "512X"'),
        ("workers", "max_memory = true"),
        ("workers", "default_timeout = 86401"),
        ("handlers.x", 'target = "a"'),
        ("handlers.x", 'target = "a:b:c"'),
        ("handlers.x", 'target = "a:1b"'),
        ("handlers.x", 'target = "a-b:c"'),
        ("handlers.x", 'target = "a.:b"'),
        ("handlers.x", 'target = "a:class"'),
        ("handlers.x", "target = 3"),
        ("signature", 'keys = ["xy"]'),
        ("signature", 'keys = ["d75a98"]'),
        ("signature", "keys = []"),
        ("signature", "max_age = 60"),
        ("nats", "reply_prefixes = []"),
        ("nats", 'reply_prefixes = ["_INBOX.>"]'),
        ("runtime", 'directory = "run"'),
        ("runtime", f'directory = "/{"x" * 100}"'),
        ("log", 'level = "INFO"'),
        ("http", 'listen = "9464"'),
        ("http", 'listen = "127.0.0.1:0"'),
        ("http", 'listen = "127.0.0.1:65536"'),
        ("http", 'listen = "::1:9464"'),
    ],
)
def test_a_wrong_value_is_told_with_its_key(directory: Path, section: str, line: str) -> None:
    problem = problem_of(directory, f"{HANDLER}[{section}]\n{line}")
    assert problem.key.replace('"', "").removesuffix("[0]") == f"{section}.{line.partition(' ')[0]}"
    assert problem.allowed


@pytest.mark.parametrize("route", ["a b", "a.b", "a*", ">", "ä", "catchall"])
def test_a_route_that_no_task_type_begins_with_is_refused(directory: Path, route: str) -> None:
    assert problem_of(directory, f'[handlers."{route}"]\ntarget = "a:b"').key == f'handlers."{route}"'


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("ws://h:1", 'scheme "ws"'),
        ("h:4222", "without a scheme"),
        ("nats://", '"nats://"'),
        ("nats://h:99999", "host or port"),
        ("nats://h:0", '"nats://h:0"'),
        ("nats://h/x", '"nats://h/x"'),
        ("nats://h x:1", "white space"),
    ],
)
def test_an_address_is_nats_or_tls_with_host_and_port(directory: Path, address: str, found: str) -> None:
    problem = problem_of(directory, f'{HANDLER}[nats]\nservers = ["nats://good", "{address}"]')
    assert problem.key == "nats.servers[1]"
    assert found in problem.found


# files


def test_a_file_that_is_not_there_says_so(directory: Path) -> None:
    with pytest.raises(SettingsError, match="no such file") as caught:
        load(directory / "other.toml", {})
    assert [problem.file for problem in caught.value.problems] == [directory / "other.toml"]


def test_a_directory_in_place_of_the_file_says_so(directory: Path) -> None:
    with pytest.raises(SettingsError, match="is a directory"):
        load(directory, {})


def test_bytes_that_are_not_utf8_are_told_with_their_line(directory: Path) -> None:
    (directory / "ajhost.toml").write_bytes(b"[nats]\n# \xff\n")
    with pytest.raises(SettingsError, match="line 2: found a byte that is not UTF-8"):
        load(directory / "ajhost.toml", {})


def test_a_configuration_that_everybody_may_write_is_refused(directory: Path) -> None:
    write(directory / "conf.d" / "10.toml", "", 0o646)
    problem = problem_of(directory, HANDLER)
    assert problem.file == directory / "conf.d" / "10.toml"
    assert "0646" in problem.found


def test_a_file_in_the_place_of_the_drop_ins_is_told(directory: Path) -> None:
    (directory / "conf.d").rmdir()
    write(directory / "conf.d", "[workers]\ncount = 2")
    problem = problem_of(directory, HANDLER)
    assert problem.file == directory / "conf.d"
    assert "directory" in problem.allowed


def test_an_interpreter_must_be_executable(directory: Path) -> None:
    write(directory / "python", "#!/bin/sh\n", 0o644)
    for name, found in (
        ("python", "cannot be executed"),
        (".", "a directory"),
        ("none", "no such file"),
    ):
        problem = problem_of(directory, f'{HANDLER}[python]\ninterpreter = "{name}"')
        assert problem.key == "python.interpreter"
        assert found in problem.found


def test_an_interpreter_that_is_a_link_stays_one(directory: Path) -> None:
    (directory / "python").symlink_to(sys.executable)
    settings = load_text(directory, f'{HANDLER}[python]\ninterpreter = "python"')
    assert settings.python.interpreter == directory / "python"


def test_a_path_that_is_not_there_is_told(directory: Path) -> None:
    problem = problem_of(directory, f'{HANDLER}[python]\npath = [".", "gone"]')
    assert problem.key == "python.path[1]"
    assert str(directory / "gone") in problem.found
