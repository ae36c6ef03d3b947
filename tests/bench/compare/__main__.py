"""Compare pgflow with the other engines for Python: `python -m tests.bench.compare`."""

from tests.bench.compare.command import command

command(prog_name="python -m tests.bench.compare")
