"""`pgflow worker` with failpoints: `PGFLOW_FAILPOINTS=claimer.sent=kill@3 python -m tests.torture.worker --app …`."""

import os
import sys

from pgflow.cli import cli
from pgflow.worker import points
from tests.torture.workers import failpoints
from tests.torture.workers.failpoints import VARIABLE

__all__ = ["COMMAND", "main"]

COMMAND = (sys.executable, "-m", "tests.torture.worker")


def main() -> None:
    """Install the failpoints that the environment names, and run a worker with the options of the command line."""
    failpoints.arm(os.environ.get(VARIABLE, ""))
    points.install(failpoints.hit)
    cli(["worker", *sys.argv[1:]], prog_name="pgflow")


if __name__ == "__main__":
    main()
