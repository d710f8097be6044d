"""The command line of `scripts/systemd-lab`."""

from __future__ import annotations

import argparse
import os
import sys

from scripts.lib.systemd_lab import container, execute, lifecycle, state, user_mode_linux
from scripts.lib.systemd_lab.linux import LabError
from scripts.lib.systemd_lab.overlay import RootOptions, checkout
from scripts.lib.systemd_lab.state import Lab

_USAGE = """Boots a real systemd in a throw-away overlay of this machine's root. Needs root and the Debian packages
systemd, systemd-container, dbus, util-linux, mount and python3; `uml` also user-mode-linux (or its path in
SYSTEMD_LAB_UML)."""
_DEFAULT_DIR = os.environ.get("SYSTEMD_LAB_DIR", "/run/systemd-lab")
_FAILED = 125


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="systemd-lab", description=_USAGE)
    verbs = parser.add_subparsers(dest="verb", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--name", default="lab")
    common.add_argument("--dir", default=_DEFAULT_DIR, help="where labs keep their state [%(default)s]")
    common.add_argument("-q", "--quiet", action="store_true")
    root = argparse.ArgumentParser(add_help=False)
    root.add_argument("--bind", action="append", default=[], metavar="SRC[:DST]", help="writable bind mount")
    root.add_argument("--bind-ro", action="append", default=[], metavar="SRC[:DST]")
    root.add_argument("--no-checkout", action="store_true", help="do not bind the current git checkout")
    root.add_argument("--mask", action="append", default=[], metavar="UNIT")
    root.add_argument("--keep-host-units", action="store_true", help="show the host's /etc/systemd/system")
    root.add_argument("--size", default="4g", help="of the tmpfs that takes every write")

    up = verbs.add_parser("up", parents=[common, root], help="boot a lab")
    up.add_argument("--network", choices=("private", "host"), default="private")
    up.add_argument(
        "--cgroup",
        choices=("hybrid", "unified"),
        default="hybrid",
        help="what systemd inside sees, on hosts with version 1 controllers",
    )
    up.add_argument("--syscalls", default="bpf @keyring", help="nspawn --system-call-filter=")
    up.add_argument("--capability", default="CAP_BPF,CAP_PERFMON,CAP_NET_ADMIN", help="nspawn --capability=")
    up.add_argument("--nspawn-arg", action="append", default=[])
    up.add_argument("--init-arg", action="append", default=[])
    up.add_argument("--timeout", type=float, default=60)

    uml = verbs.add_parser("uml", parents=[common, root], help="one command on a kernel of its own")
    uml.add_argument("--mem", default="1G")
    uml.add_argument("--timeout", type=float, default=180)
    uml.add_argument("cmd", nargs=argparse.REMAINDER)

    inside = verbs.add_parser("exec", parents=[common], help="one command inside a lab")
    inside.add_argument("--user")
    inside.add_argument("--cwd", default="/")
    inside.add_argument("--env", action="append", default=[], metavar="K[=V]")
    inside.add_argument("cmd", nargs=argparse.REMAINDER)

    down = verbs.add_parser("down", parents=[common], help="end a lab")
    down.add_argument("--all", action="store_true")
    down.add_argument("--graceful", action="store_true", help="shut down cleanly first")
    down.add_argument("--timeout", type=float, default=30)

    reboot = verbs.add_parser("reboot", parents=[common], help="reboot a lab in order")
    reboot.add_argument("--timeout", type=float, default=60)
    for verb in ("list", "root", "pid", "console"):
        verbs.add_parser(verb, parents=[common])
    return parser


def _root_options(asked: argparse.Namespace) -> RootOptions:
    return RootOptions(
        binds=tuple(asked.bind),
        read_only_binds=(*asked.bind_ro, *(() if asked.no_checkout else checkout())),
        masked=tuple(asked.mask),
        keep_host_units=asked.keep_host_units,
        size=asked.size,
    )


def _command(asked: argparse.Namespace) -> tuple[str, ...]:
    command = tuple(asked.cmd[1:] if asked.cmd[:1] == ["--"] else asked.cmd)
    if not command:
        raise LabError(f"{asked.verb}: no command")
    return command


def _obey(asked: argparse.Namespace) -> int:
    lab = Lab(asked.name, asked.dir)
    match asked.verb:
        case "up":
            options = container.ContainerOptions(
                root=_root_options(asked),
                network=asked.network,
                cgroup=asked.cgroup,
                syscalls=asked.syscalls,
                capability=asked.capability,
                nspawn_arguments=tuple(asked.nspawn_arg),
                init_arguments=tuple(asked.init_arg),
                timeout=asked.timeout,
            )
            return container.up(lab, options, quiet=asked.quiet)
        case "uml":
            guest = user_mode_linux.KernelOptions(_root_options(asked), asked.mem, asked.timeout, _command(asked))
            return user_mode_linux.run(lab, guest, quiet=asked.quiet)
        case "exec":
            return execute.execute(lab, execute.Command(_command(asked), asked.user, asked.cwd, asked.env))
        case "down":
            found = [Lab(name, asked.dir) for name in state.names(asked.dir)] if asked.all else [lab]
            return lifecycle.down(found, asked.timeout, graceful=asked.graceful, quiet=asked.quiet)
        case "reboot":
            return lifecycle.reboot(lab, asked.timeout, quiet=asked.quiet)
        case "list":
            return lifecycle.show_all(asked.dir)
        case "console":
            return lifecycle.show_console(lab)
        case "pid":
            return lifecycle.show_leader(lab)
        case _:
            return lifecycle.show_root(lab)


def main() -> None:
    """Does what the command line asks, and exits; 125 when it cannot."""
    try:
        sys.exit(_obey(_parser().parse_args()))
    except LabError as error:
        print(f"systemd-lab: {error}", file=sys.stderr)
        sys.exit(_FAILED)


if __name__ == "__main__":
    main()
