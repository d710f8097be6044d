"""What users get wrong: each mistake is told with its place, with what is allowed, and without a secret."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ajhost.settings.errors import SettingsError
from ajhost.settings.load import load

SECRET = "hunter2-Xq9"
SEED = "SUANQDPB2RUOE4ETUA26CNX7FUKE5ZZKFCQIIW63OX225F2CO7UEXTM7ZY"
JWT = "eyJ0eXAiOiJKV1QiLCJhbGciOiJlZDI1NTE5LW5rZXkifQ.eyJqdGkiOiJBQkMifQ.c2lnbmF0dXJl"
CREDS = f"-----BEGIN NATS USER JWT-----\\n{JWT}\\n------END NATS USER JWT------\\n{SEED}"
KEY = "-----BEGIN PRIVATE KEY-----\\nMC4CAQAwBQYDK2VwBCIEIJz\\n-----END PRIVATE KEY-----"
PRIVATE = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
SECRETS = (SECRET, SEED, JWT, "MC4CAQAwBQYDK2VwBCIEIJz", PRIVATE)

# name -> (text of ajhost.toml, the key that is told); [handlers] is added where the text has none
NATS = {
    "a server without its list": (f'servers = "nats://u:{SECRET}@h:4222"', "nats.servers"),
    "a server without a scheme": (f'servers = ["u:{SECRET}@h:4222"]', "nats.servers[0]"),
    "a scheme of the web": (f'servers = ["https://u:{SECRET}@h"]', "nats.servers[0]"),
    "a port that is a password": (f'servers = ["nats://u@h:{SECRET}"]', "nats.servers[0]"),
    "a slash in a password": (f'servers = ["nats://u:{SECRET}/x@h"]', "nats.servers[0]"),
    "a hash in a password": (f'servers = ["nats://u:a#{SECRET}@h"]', "nats.servers[0]"),
    "a question mark in a password": (f'servers = ["nats://u:a?{SECRET}@h"]', "nats.servers[0]"),
    "a space in a password": (f'servers = ["nats://u:{SECRET} x@h"]', "nats.servers[0]"),
    "no host": (f'servers = ["nats://u:{SECRET}@"]', "nats.servers[0]"),
    "two servers in one text": (
        f'servers = ["nats://u:{SECRET}@a,nats://u:{SECRET}@b:x"]',
        "nats.servers[0]",
    ),
    "a token in the address": (f'servers = ["nats://{SECRET}@h:99999"]', "nats.servers[0]"),
    "a scheme with one slash": (f'servers = ["nats:/u:{SECRET}@h"]', "nats.servers[0]"),
    "a variable for a host": ('servers = ["nats://${NATS_HOST}:4222"]', "nats.servers[0]"),
    "a place for a host": ('servers = ["nats://<host>:4222"]', "nats.servers[0]"),
    "every host": ('servers = ["nats://*:4222"]', "nats.servers[0]"),
    "an address beyond all": ('servers = ["nats://300.1.1.1:4222"]', "nats.servers[0]"),
    "half an address": ('servers = ["nats://10.1:4222"]', "nats.servers[0]"),
    "a server that is a table": (f'servers = [{{ url = "nats://u:{SECRET}@h" }}]', "nats.servers[0]"),
    "a server that is a number": ("servers = [4222]", "nats.servers[0]"),
    "an empty list of servers": ("servers = []", "nats.servers"),
    "a password that is a number": (f'user = "u"\npassword = {int("1234567")}', "nats.password"),
    "a password in a list": (f'user = "u"\npassword = ["{SECRET}"]', "nats.password"),
    "a password in a table": (f'user = "u"\npassword = {{ value = "{SECRET}" }}', "nats.password"),
    "an empty password": ('user = "u"\npassword = ""', "nats.password"),
    "a password without a user": (f'password = "{SECRET}"', "nats.password"),
    "a user without a password": ('user = "u"', "nats.user"),
    "a password as a file": (f'user = "u"\npassword_file = "{SECRET}"', "nats.password_file"),
    "a token as a file": (f'token_file = "{SECRET}"', "nats.token_file"),
    "a token in a list": (f'token = ["{SECRET}"]', "nats.token"),
    "a token that is true": ("token = true", "nats.token"),
    "a seed as a file": (f'nkey = "{SEED}"', "nats.nkey"),
    "creds in the settings": (f'creds = "{CREDS}"', "nats.creds"),
    "a JWT as creds": (f'creds = "{JWT}"', "nats.creds"),
    "creds that are a list": (f'creds = ["{JWT}", "{SEED}"]', "nats.creds"),
    "a seed in a list": (f'nkey = ["{SEED}"]', "nats.nkey"),
    "user and password in one": (f'user = "u:{SECRET}"', "nats.user"),
    "two identities": (f'user = "u"\npassword = "{SECRET}"\ntoken = "{SECRET}"', "nats.user"),
    "a password twice": (f'user = "u"\npassword = "{SECRET}"\npassword_file = "x"', "nats.password_file"),
    "a password misspelt": (f'user = "u"\npasword = "{SECRET}"', "nats.pasword"),
    "a password in another language": (f'user = "u"\nkennwort = "{SECRET}"', "nats.kennwort"),
    "a username": (f'username = "u"\npassword = "{SECRET}"', "nats.username"),
    "a url": (f'url = "nats://u:{SECRET}@h"', "nats.url"),
    "a seed": (f'seed = "{SEED}"', "nats.seed"),
    "a jwt": (f'jwt = "{JWT}"', "nats.jwt"),
    "a group with a password": (f'queue_group = "u:{SECRET} x"', "nats.queue_group"),
    "a group with a wildcard": ('queue_group = "a.*"', "nats.queue_group"),
    "an inbox with a wildcard": ('inbox_prefix = "_INBOX.>"', "nats.inbox_prefix"),
    "a group of 5,000 characters": (f'queue_group = "{"q" * 5000}"', "nats.queue_group"),
    "a group with an end": ('queue_group = "a\\u0000b"', "nats.queue_group"),
    "an inbox with a password": (f'inbox_prefix = "{SECRET} x"', "nats.inbox_prefix"),
    "an inbox of the server's own": ('inbox_prefix = "$JS.API"', "nats.inbox_prefix"),
    "prefixes that nobody is answered on": ('reply_prefixes = ["CHORIA_AJ.T"]', "nats.reply_prefixes[0]"),
    "an empty inbox": ('inbox_prefix = ""', "nats.inbox_prefix"),
    "a context that is an address": (f'context = "nats://u:{SECRET}@h"', "nats.context"),
    "a context that is none": ('context = "nosuch"', "nats.context"),
    "a context that is a path": ('context = "../x"', "nats.context"),
    "an empty context": ('context = ""', "nats.context"),
    "a context beside servers": ('context = "x"\nservers = ["nats://h"]', "nats.servers"),
    "a key in the settings": (f'tls = {{ key = "{KEY}", cert = "x.pem" }}', "nats.tls.key"),
    "a certificate in the settings": (f'tls = {{ cert = "{KEY}" }}', "nats.tls.cert"),
    "a password of TLS": (f'tls = {{ password = "{SECRET}" }}', "nats.tls.password"),
    "TLS that is a text": (f'tls = "{SECRET}"', "nats.tls"),
    "TLS first that is a text": ('tls = { first = "yes" }', "nats.tls.first"),
    "a directory as a password": ('user = "u"\npassword_file = "."', "nats.password_file: found"),
    "a device as a token": ('token_file = "/dev/null"', "nats.token_file: found /dev/null, no regular file"),
    "an authority that is not there": ('tls = { ca = "ca.pem" }', "nats.tls.ca"),
    "a key without a certificate": ('tls = { key = "x.pem" }', "nats.tls.key"),
    "creds that are not there": ('creds = "credentials/nats.creds"', "nats.creds"),
    "creds with an end": ('creds = "a\\u0000b"', "nats.creds"),
    "creds without a name": ('creds = ""', "nats.creds"),
}
OTHER = {
    "no handlers": ("[handlers]\n", "handlers"),
    "a handler without a target": ("[handlers.a]\ntimeout = 1", 'handlers."a".target'),
    "a handler that is a text": ('handlers = { a = "app:send" }', 'handlers."a"'),
    "a target without a function": ('[handlers.a]\ntarget = "app"', 'handlers."a".target'),
    "a target with a path": ('[handlers.a]\ntarget = "app/mail.py:send"', 'handlers."a".target'),
    "a target with two colons": ('[handlers.a]\ntarget = "app:a:b"', 'handlers."a".target'),
    "a target that is called": ('[handlers.a]\ntarget = "app:send()"', 'handlers."a".target'),
    "a target with a keyword": ('[handlers.a]\ntarget = "app:class"', 'handlers."a".target'),
    "a route with a space": ('[handlers."a b"]\ntarget = "a:b"', 'handlers."a b"'),
    "a route with a star": ('[handlers."email:*"]\ntarget = "a:b"', 'handlers."email:*"'),
    "a route without quotes": ('[handlers.email:new]\ntarget = "a:b"', "line 1"),
    "the route catchall": ('[handlers.catchall]\ntarget = "a:b"', 'handlers."catchall"'),
    "a timeout of nothing": ('[handlers.a]\ntarget = "a:b"\ntimeout = 0', 'handlers."a".timeout'),
    "a timeout with a unit": ('[handlers.a]\ntarget = "a:b"\ntimeout = "30s"', 'handlers."a".timeout'),
    "a concurrency of nothing": ('[handlers.a]\ntarget = "a:b"\nconcurrency = 0', 'handlers."a".concurrency'),
    "a misspelt key of a handler": ('[handlers.a]\ntarget = "a:b"\ntimout = 3', 'handlers."a".timout'),
    "a key of another table": ('[handlers.a]\ntarget = "a:b"\nbacklog = 3', 'handlers."a".backlog'),
    "unwrap that is a text": ('[handlers.a]\ntarget = "a:b"\nunwrap = "no"', 'handlers."a".unwrap'),
    "too few crashes": ('[handlers.a]\ntarget = "a:b"\nmax_crashes = -1', 'handlers."a".max_crashes'),
    "no workers": ("[workers]\ncount = 0", "workers.count"),
    "too many workers": ("[workers]\ncount = 4096", "workers.count"),
    "many workers": ('[workers]\ncount = "many"', "workers.count"),
    "half a worker": ("[workers]\ncount = 1.5", "workers.count"),
    "true workers": ("[workers]\ncount = true", "workers.count"),
    "a backlog below zero": ("[workers]\nbacklog = -1", "workers.backlog"),
    "an endless time": ("[workers]\ndrain_timeout = inf", "workers.drain_timeout"),
    "a time that is none": ("[workers]\nkill_grace = nan", "workers.kill_grace"),
    "a time below zero": ("[workers]\ndrain_timeout = -1", "workers.drain_timeout"),
    "a time of a week": ("[workers]\ndefault_timeout = 604800", "workers.default_timeout"),
    "a size with a unit of its own": ('[workers]\nmax_memory = "512MB"', "workers.max_memory"),
    "a size that is small": ('[workers]\nmax_memory = "1K"', "workers.max_memory"),
    "a size that is a word": ('[workers]\nmax_memory = "lots"', "workers.max_memory"),
    "tasks below zero": ("[workers]\nmax_tasks = -5", "workers.max_tasks"),
    "a misspelt key": ("[workers]\ncuncurrency = 3", "workers.cuncurrency"),
    "a misspelt table": ("[wrokers]\ncount = 3", "wrokers"),
    "a table of somebody else": (f'[database]\npassword = "{SECRET}"', "database"),
    "a key without its table": ("count = 3", "count"),
    "a password without its table": (f'password = "{SECRET}"', "password"),
    "an interpreter that is not there": ('[python]\ninterpreter = "/nosuch/python"', "python.interpreter"),
    "an interpreter that is a directory": ('[python]\ninterpreter = "/usr"', "python.interpreter"),
    "a path that is a text": ('[python]\npath = "/srv"', "python.path"),
    "a path that is not there": ('[python]\npath = ["nosuch"]', "python.path[0]"),
    "a path that is a module": ('[python]\npath = ["ajhost.toml"]', "python.path[0]"),
    "a path from home": ('[python]\npath = ["~/app"]', "python.path[0]"),
    "the name of an interpreter": ('[python]\ninterpreter = "python3"', "python.interpreter"),
    "preload that is a text": ('[python]\npreload = "yes"', "python.preload"),
    "an import timeout of nothing": ("[python]\nimport_timeout = 0", "python.import_timeout"),
    "something open that is a text": ('[python]\nallow_open = "127.0.0.1:5432"', "python.allow_open"),
    "a private key among the public ones": (
        f'[signature]\nkeys = ["{PRIVATE}{PRIVATE}"]',
        "signature.keys[0]",
    ),
    "a key of zeros": (f'[signature]\nkeys = ["{"0" * 64}"]', "signature.keys[0]"),
    "a private key as a public one": (f'[signature]\nkeys = ["{PRIVATE}"]', "signature.keys[0]"),
    "a seed among the keys": (f'[signature]\nkeys = ["{SEED}"]', "signature.keys[0]"),
    "signatures without keys": ("[signature]", "signature"),
    "signatures without keys, and an age": ("[signature]\nmax_age = 60", "signature.max_age"),
    "no keys": ("[signature]\nkeys = []", "signature.keys"),
    "keys that are a text": (f'[signature]\nkeys = "{PRIVATE}"', "signature.keys"),
    "keys in a file of something else": (
        '[signature]\nkey_file = "ajhost.toml"',
        "signature.key_file: found {file}, whose word 1 is a text",
    ),
    "keys in a file that is not there": ('[signature]\nkey_file = "tasks.pub"', "signature.key_file"),
    "a key as a file": (f'[signature]\nkey_file = "{PRIVATE}"', "signature.key_file"),
    "a relative directory": ('[runtime]\ndirectory = "run"', "runtime.directory"),
    "the directory of all": ('[runtime]\ndirectory = "/"', "runtime.directory"),
    "a directory of the machine": ('[runtime]\ndirectory = "/etc/"', "runtime.directory"),
    "a directory that leads there": ('[runtime]\ndirectory = "/run/ajhost/.."', "runtime.directory"),
    "a long directory": (f'[runtime]\ndirectory = "/{"x" * 120}"', "runtime.directory"),
    "a directory that is a number": ("[runtime]\ndirectory = 3", "runtime.directory"),
    "a user that is a number": ("[runtime]\nuser = 10001", "runtime.user"),
    "a level that is none": ('[log]\nlevel = "loud"', "log.level"),
    "a level in capitals": ('[log]\nlevel = "INFO"', "log.level"),
    "a format that is none": ('[log]\nformat = "xml"', "log.format"),
    "a limit of no reason": ('[log.limits]\n"handler eror" = 3', 'log.limits."handler eror"'),
    "a limit of nothing": ("[log.limits]\noverloaded = 0", "log.limits.overloaded"),
    "a level of a logger": ('[log.levels]\nurllib3 = "loud"', "log.levels.urllib3"),
    "a port alone": ('[http]\nlisten = "9464"', "http.listen"),
    "a port that is a number": ("[http]\nlisten = 9464", "http.listen"),
    "a port out of range": ('[http]\nlisten = "127.0.0.1:99999"', "http.listen"),
    "an address of the web": (f'[http]\nlisten = "http://u:{SECRET}@h:80"', "http.listen"),
    "hosts with a star": (
        '[http]\nlisten = "127.0.0.1:80"\nhosts = ["*.example.net"]',
        "http.hosts[0]",
    ),
    "http without an address": ("[http]", "http.listen"),
    "a time of the day": ("[workers]\nkill_grace = 07:32:00", "workers.kill_grace"),
    "a date": ("[workers]\ncount = 2026-01-01", "workers.count"),
    "a number of 5,000 digits": (f"[workers]\nbacklog = {'9' * 5000}", "file"),
    "a number of 20,000 bits": (f"[workers]\nbacklog = 0x{'f' * 5000}", "workers.backlog"),
    "a size of 20,000 bits": (f"[workers]\nmax_memory = 0x{'f' * 5000}", "workers.max_memory"),
    "a size beyond a double": (f'[workers]\nmax_memory = "{"9" * 400}M"', "workers.max_memory"),
    "lists in lists": (f"[nats]\nservers = {'[' * 3000}{']' * 3000}", "file"),
    "tables in tables": (f"[nats]\n{'a.' * 900}b = 1", "nats.a"),
    "an address as a key": (f'[nats]\n"nats://u:{SECRET}@h:4222" = true', "nats.(a text of 27 characters)"),
    "a seed as a key": (f"[nats]\n{SEED} = true", "nats.(a text of 58 characters)"),
    "an address as a table": (f'["nats://u:{SECRET}@h"]\na = 1', "(a text of 22 characters)"),
    "an address as a route": (f'[handlers."nats://u:{SECRET}@h"]\ntarget = "a:b"', "handlers.(a text"),
    "an address as a logger": (f'[log.levels]\n"nats://u:{SECRET}@h" = "loud"', "log.levels.(a text"),
    "an address as a path": (f'[python]\npath = ["https://u:{SECRET}@h"]', "python.path[0]"),
    "an address as an interpreter": (f'[python]\ninterpreter = "https://u:{SECRET}@h"', "python.interpreter"),
    "a path of two lines": ('[python]\npath = ["a\\nb"]', "python.path[0]"),
    "a key that turns the text round": ('[nats]\n"\\u202e" = 1', 'nats."\\u202e"'),
    "a key of 100,000 characters": (f"[nats]\n{'k' * 100_000} = 1", "nats.(a text of 100000 characters)"),
    "a route of 5,000 characters": (f'[handlers.{"r" * 5000}]\ntarget = "a:b"', "handlers.(a text of 5000"),
    "handlers in a list": ('[[handlers]]\ntarget = "a:b"', "handlers"),
    "no quotes": ("[log]\nlevel = info", "line 2"),
    "a quote too few": (f'[nats]\nuser = "u"\npassword = "{SECRET}', "line 3"),
    "a table twice": ("[log]\n[log]\n", "line 2"),
    "a key twice": ('[log]\nlevel = "info"\nlevel = "debug"', "line 3"),
    "a list that does not end": ("[nats]\nservers = [\n", "line"),
    "yaml": (f"nats:\n  password: {SECRET}\n", "line 1"),
    "json": (f'{{"nats": {{"password": "{SECRET}"}}}}', "line 1"),
    "an ini file": (f"[nats]\npassword = {SECRET}\n", "line 2"),
}
CASES = {**{name: (f"[nats]\n{text}\n", key) for name, (text, key) in NATS.items()}, **OTHER}


def problems(tmp_path: Path, text: str) -> str:
    file = tmp_path / "ajhost.toml"
    file.write_text(text if "handlers" in text else f'{text}\n[handlers.ok]\ntarget = "a:b"\n')
    file.chmod(0o600)
    with pytest.raises(SettingsError) as caught:
        load(file, {"HOME": str(tmp_path)})
    return str(caught.value)


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_is_told_with_its_place_and_without_a_secret(tmp_path: Path, name: str) -> None:
    text, key = CASES[name]
    key = key.replace("{file}", f"{tmp_path}/ajhost.toml")
    told = problems(tmp_path, text)
    assert [secret for secret in SECRETS if secret in told] == [], told
    assert f"{tmp_path}/ajhost.toml: {key}" in told, told
    for line in told.splitlines():
        assert re.fullmatch(r".*: found .+, allowed: .+", line), line
        assert line.isprintable()
        assert len(line) < 1000
    assert "1234567" not in told


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        ("[log]\nlevel = debug", 'texts stand in "straight quotes"'),
        ("[log]\nlevel = “info”", 'texts stand in "straight quotes"'),
        ("[python]\npreload = True", "true and false are written so"),
        ("[workers]\ncount: 2", "joined by ="),
        ("; ours\n[workers]", 'begins with "#"'),
        ("[workers] // ours", 'begin with "#"'),
        ("[wor kers]", "stand in quotes"),
        ("[log]\n[log]", "written once"),
        ('[handlers.email:new]\ntarget = "a:b"', "is written in quotes"),
        ('[python]\npath = ["~/app"]', "~ is not replaced"),
        ('[nats]\ncreds = "$CREDENTIALS_DIRECTORY/nats.creds"', "$ is not replaced"),
        ('[nats]\ncreds = "%d/nats.creds"', "%d is not replaced"),
        ('[python]\ninterpreter = "python3"', "like /usr/bin/python3"),
        ('[handlers.a]\ntarget = "a:b"\ntimeout = "5 minutes"', "a number of seconds"),
    ],
)
def test_a_mistake_is_told_with_its_cure(tmp_path: Path, text: str, cure: str) -> None:
    assert cure in problems(tmp_path, text)


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 100


@pytest.mark.parametrize("kind", ["a password", "a token", "settings"])
def test_a_byte_order_mark_is_no_part_of_anything(tmp_path: Path, kind: str) -> None:
    """Editors of Windows write one."""
    bom = b"\xef\xbb\xbf"
    file = tmp_path / "ajhost.toml"
    text = b'[handlers.ok]\ntarget = "a:b"\n'
    if kind == "settings":
        text = bom + text
    else:
        (tmp_path / "secret").write_bytes(bom + b"word\r\n")
        (tmp_path / "secret").chmod(0o600)
        text += (
            b'[nats]\nuser = "u"\npassword_file = "secret"\n'
            if kind == "a password"
            else b'[nats]\ntoken_file = "secret"\n'
        )
    file.write_bytes(text)
    assert load(file, {}).handlers[0].route == "ok"


# name -> (the variable, its value, the key that is told)
VARIABLES = {
    "a server without its list": ("NATS__SERVERS", f"nats://u:{SECRET}@h:4222", "nats.servers"),
    "a list in one quote": ("NATS__SERVERS", f"['nats://u:{SECRET}@h:4222']", "nats.servers"),
    "a list that does not end": ("NATS__SERVERS", f'["nats://u:{SECRET}@h:4222"', "nats.servers"),
    "a scheme of the web": ("NATS__SERVERS", f'["https://u:{SECRET}@h"]', "nats.servers[0]"),
    "creds that are not a file": ("NATS__CREDS", JWT, "nats.creds"),
    "a seed that is not a file": ("NATS__NKEY", SEED, "nats.nkey"),
    "a password without a user": ("NATS__PASSWORD", SECRET, "nats.password"),
    "a misspelt key": ("NATS__PASWORD", SECRET, "nats.pasword"),
    "a misspelt table": ("NAST__PASSWORD", SECRET, "nast"),
    "a table that is a text": ("NATS", f"nats://u:{SECRET}@h", "nats"),
    "a table of another shape": ("NATS", f'["{SECRET}"]', "nats"),
    "a key of TLS": ("NATS__TLS__KEY", KEY, "nats.tls.key"),
    "a level too deep": ("NATS__TLS__KEY__FILE", SECRET, "nats.tls.key"),
    "a number that is none": ("WORKERS__COUNT", "four", "workers.count"),
    "a number out of range": ("WORKERS__COUNT", "4096", "workers.count"),
    "an empty number": ("WORKERS__COUNT", "", "workers.count"),
    "a time with a unit": ("WORKERS__DRAIN_TIMEOUT", "30s", "workers.drain_timeout"),
    "a truth that is none": ("PYTHON__PRELOAD", "yes", "python.preload"),
    "a path without its list": ("PYTHON__PATH", "/app", "python.path"),
    "a path that is not there": ("PYTHON__PATH", '["/nosuch/app"]', "python.path[0]"),
    "handlers that are no table": ("HANDLERS", "mail:send", "handlers"),
    "a handler that is a text": ("HANDLERS", '{"a": "mail:send"}', 'handlers."a"'),
    "a handler without a target": ("HANDLERS", '{"a": {"timeout": 3}}', 'handlers."a".target'),
    "a private key among the public ones": (
        "SIGNATURE__KEYS",
        f'["{PRIVATE}{PRIVATE}"]',
        "signature.keys[0]",
    ),
    "a level that is none": ("LOG__LEVEL", "loud", "log.level"),
    "a port alone": ("HTTP__LISTEN", "9464", "http.listen"),
    "an address with a password": ("HTTP__LISTEN", f"http://u:{SECRET}@h:80", "http.listen"),
    "a relative directory": ("RUNTIME__DIRECTORY", "run", "runtime.directory"),
    "bytes that are no text": ("NATS__QUEUE_GROUP", "\udcff", "nats.queue_group"),
    "a list in lists": ("NATS__SERVERS", "[" * 5000, "nats.servers"),
    "a number in lists": ("WORKERS__COUNT", "[" * 5000, "workers.count"),
    "a number of 5,000 digits": ("WORKERS__BACKLOG", "9" * 5000, "workers.backlog"),
    "a name in names": ("NATS__" + "A__" * 3000 + "B", "x", "nats.a"),
    "a user without a name": ("RUNTIME__USER", "", "runtime.user"),
}


@pytest.mark.parametrize("name", VARIABLES)
def test_a_mistake_in_the_environment_is_told_by_its_variable(tmp_path: Path, name: str) -> None:
    variable, value, key = VARIABLES[name]
    file = tmp_path / "ajhost.toml"
    if variable != "HANDLERS":
        file.write_text('[handlers.ok]\ntarget = "a:b"\n')
    with pytest.raises(SettingsError) as caught:
        load(file, {"HOME": str(tmp_path), f"AJHOST_{variable}": value})
    told = str(caught.value)
    assert [secret for secret in SECRETS if secret in told] == [], told
    assert f"AJHOST_{variable} (environment): {key}" in told, told
    for line in told.splitlines():
        assert re.fullmatch(r".*: found .+, allowed: .+", line), line


@pytest.mark.parametrize("name", [*NATS][:12])
def test_a_mistake_in_a_drop_in_is_told_by_its_file(tmp_path: Path, name: str) -> None:
    text, key = NATS[name]
    (tmp_path / "ajhost.toml").write_text('[handlers.ok]\ntarget = "a:b"\n')
    (tmp_path / "conf.d").mkdir()
    drop_in = tmp_path / "conf.d" / "50-nats.toml"
    drop_in.write_text(f"[nats]\n{text}\n")
    drop_in.chmod(0o600)
    with pytest.raises(SettingsError) as caught:
        load(tmp_path / "ajhost.toml", {"HOME": str(tmp_path)})
    told = str(caught.value)
    assert [secret for secret in SECRETS if secret in told] == [], told
    assert f"{drop_in}: {key}" in told, told
