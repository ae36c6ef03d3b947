"""Compare pgflow with what else a Python user would pick: `python -m tests.bench.compare`."""

from tests.bench.compare.command import command

command(prog_name="python -m tests.bench.compare")
