"""Run the system's own programs, such as `ip` and `mount`."""

import os
import shutil
import subprocess

from pgflow.errors import PgflowError

__all__ = ["find", "run"]

SECONDS = 30.0
PLACES = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))


def find(program: str) -> str | None:
    """Return the path of a program, None when it is not installed."""
    return shutil.which(program, path=PLACES)


def run(program: str, *arguments: str) -> str:
    """Run a program and return its output. Raises `PgflowError` when it fails or is not installed.

    run("ip", "-json", "link", "show", "lo")
    """
    path = find(program)
    if path is None:
        raise PgflowError(f"the program {program} is not installed")
    ran = subprocess.run(
        [path, *arguments], check=False, capture_output=True, stdin=subprocess.DEVNULL, text=True, timeout=SECONDS
    )
    if ran.returncode != 0:
        raise PgflowError(f"{program} {' '.join(arguments)} failed: {(ran.stderr or ran.stdout).strip()}")
    return ran.stdout
