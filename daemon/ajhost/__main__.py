"""The program `ajhost`; `python -m ajhost` is the same."""

from __future__ import annotations

import sys

from ajhost.cli import exit_status  # which needs nothing that may be missing


def main() -> None:
    """Runs a command. Where the package is installed for tests alone, says what a command needs beside it."""
    try:
        from ajhost.cli.main import main as run
    except ModuleNotFoundError as error:
        sys.stderr.write(
            f"the commands of ajhost need {error.name}, which is not installed here: pip install 'ajhost[dev]'. "
            "Importing ajhost and ajhost.testing needs less.\n"
        )
        sys.exit(exit_status.CANNOT_START)
    run()


if __name__ == "__main__":
    main()
