"""`python -m ajhost` is `ajhost`."""

from ajhost.cli.main import main

if __name__ == "__main__":
    main()
