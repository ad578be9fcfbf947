"""``python -m aipod`` is the ``aipod`` command."""

from aipod.cli.main import main

if __name__ == "__main__":
    main()
