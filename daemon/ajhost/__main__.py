"""The program `ajhost`; `python -m ajhost` is the same."""

from __future__ import annotations

import sys

from ajhost.cli import exit_status  # imports only the standard library, so it is never missing


def main() -> None:
    """Runs a command. If the package is installed without a command's dependencies, says how to install them."""
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
