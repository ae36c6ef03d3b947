"""See how each cost grows as the work grows: `python -m tests.bench.scale`."""

from tests.bench.scale.command import command

command(prog_name="python -m tests.bench.scale")
