"""``python -m bfpo`` is the ``bfpo`` command."""

from bfpo.cli.main import main

main()
