"""Gives up root for the user that settings or `--user` name, when root starts a host or a check outside of its unit."""

from __future__ import annotations

import contextlib
import os
import pwd
import sys
from dataclasses import dataclass
from pathlib import Path

import click

from ajhost.adapters.linux import processes, runtime_directory
from ajhost.cli import exit_status
from ajhost.cli.output import echo_error
from ajhost.settings.errors import InvalidValue
from ajhost.settings.runtime_table import runtime_directory as configured_directory
from ajhost.settings.runtime_table import runtime_user

AS_ROOT = (
    "root imports and runs the handlers: name another user with --user NAME, or `user` in [runtime]; "
    'user = "root" says that it is meant'
)


@dataclass(frozen=True, slots=True)
class _Identity:
    """A user to become. `groups`: None for those of the user database."""

    name: str
    uid: int
    gid: int
    home: str
    groups: tuple[int, ...] | None = None


def is_root() -> bool:
    """Whether this process may become another user."""
    return os.geteuid() == 0


def assume(named: str | None, config: Path) -> str | None:
    """As root, becomes the user of `--user`, else of `runtime.user`. Returns that name, or None without one.

    For any other user than root it does nothing, whatever `runtime.user` is.

    :raises click.UsageError: `--user` was given, and this process is not root's.
    """
    if not is_root():
        if named is not None:
            raise click.UsageError("--user is for root")
        return None
    if named is not None:
        become(named, "--user", config)
        return named
    try:
        user = runtime_user(config)
    except (OSError, InvalidValue):
        return None  # the caller loads the settings next, which reports more
    if user is not None:
        become(user, f"{config}: runtime.user", config)
    return user


def become(user: str, where: str, config: Path) -> None:
    """Gives up root for `user`, a name or UID[:GID], with that user's groups and HOME, as a service manager does.

    First makes the runtime directory, if it is missing: the user could not make it in root's /run. `where`: the key or
    option that names the user, for an error. Exits if there is no such user, or the kernel refuses. Returns at once for
    root itself.
    """
    identity = _identity(user, where)
    if identity.uid == 0:
        return
    with contextlib.suppress(OSError, InvalidValue):  # the caller loads the settings next, which reports it
        runtime_directory.make_for(configured_directory(config), identity.uid, identity.gid)
    try:
        if identity.groups is None:
            os.initgroups(identity.name, identity.gid)
        else:
            os.setgroups(identity.groups)
        os.setresgid(identity.gid, identity.gid, identity.gid)
        os.setresuid(identity.uid, identity.uid, identity.uid)
    except OSError as error:
        echo_error(
            f"{where}: cannot become {user}: {error.strerror}: SETUID and SETGID are needed, or a start as that user"
        )
        sys.exit(exit_status.BAD_CONFIGURATION)
    processes.allow_inspection()  # the kernel forbids it to a process that was root
    os.umask(0o077)
    os.environ.update(HOME=identity.home, USER=identity.name, LOGNAME=identity.name)
    for name in ("XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"):
        os.environ.pop(name, None)


def _identity(user: str, where: str) -> _Identity:
    uid, _, gid = user.partition(":")
    try:
        entry = pwd.getpwuid(int(uid)) if uid.isdecimal() else pwd.getpwnam(user)
        if not gid:
            return _Identity(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir)
    except (KeyError, OverflowError):
        entry = None
    numbers = uid.isdecimal() and (gid or uid).isdecimal()
    if not numbers or max(int(uid), int(gid or uid)) >= (1 << 32) - 1:
        echo_error(f"{where}: found {user!r}, allowed: a user of this machine, or UID:GID")
        sys.exit(exit_status.BAD_CONFIGURATION)
    group = int(gid or uid)
    home = "/" if entry is None else entry.pw_dir
    return _Identity(uid if entry is None else entry.pw_name, int(uid), group, home, (group,))
