"""Run the harness: `python -m tests.torture`."""

from tests.torture.command import main

main()
