"""``python -m hauberk`` is the command line."""

from hauberk.cli import main

main()
