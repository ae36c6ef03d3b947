"""Create a virtual environment for each peer, once, from pins and outside of the tree."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.bench.compare.roster import Peer

__all__ = ["Missing", "default_folder", "interpreter", "version"]

PINS = Path(__file__).parent / "pins"
NEWEST = 15  # the newest minor version of Python 3 to look for
INSTALL_SECONDS = 600.0
TAIL = 600  # characters


class Missing(Exception):
    """A peer that cannot be installed, with the reason."""


def default_folder() -> Path:
    """Return the default folder of the environments, in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pgflow-bench"


def interpreter(peer: Peer, folder: Path) -> Path:
    """Return the Python of a peer's environment, creating it if necessary. Raises `Missing`."""
    if not peer.has_environment:
        return Path(sys.executable)
    pins = PINS / f"{peer.module}.txt"
    base = _python(peer.python)
    stamp = hashlib.sha256(pins.read_bytes() + str(base).encode()).hexdigest()
    home = folder / peer.module
    if not (home / "stamp").is_file() or (home / "stamp").read_text() != stamp:
        shutil.rmtree(home, ignore_errors=True)
        home.parent.mkdir(parents=True, exist_ok=True)
        _run([str(base), "-m", "venv", str(home)])
        _run([str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--requirement", str(pins)])
        (home / "stamp").write_text(stamp)
    return home / "bin" / "python"


def version(peer: Peer, python: Path) -> str:
    """Return the version of a peer that is installed in its environment."""
    code = f"from importlib.metadata import version; print(version({peer.package!r}))"
    return _run([str(python), "-c", code]).strip()


def _python(least: tuple[int, int]) -> Path:
    """Return a Python that is new enough: ours, one on PATH, or one next to ours."""
    for candidate in _candidates():
        code = "import sys, ensurepip; print(*sys.version_info[:2])"
        try:
            said = subprocess.run(
                [candidate, "-c", code], capture_output=True, check=True, text=True, timeout=20
            ).stdout
        except (OSError, subprocess.SubprocessError):
            continue
        if tuple(map(int, said.split())) >= least:
            return candidate
    raise Missing(f"it needs Python {least[0]}.{least[1]} or newer, and none was found")


def _candidates() -> Iterator[Path]:
    yield Path(sys.executable)
    for minor in range(11, NEWEST + 1):
        if found := shutil.which(f"python3.{minor}"):
            yield Path(found)
    yield from sorted(Path(sys.base_prefix).resolve().parent.glob("*/bin/python3"))


def _run(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, check=False, text=True, timeout=INSTALL_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        raise Missing(f"{' '.join(command[:4])} …: {error}") from error
    if done.returncode != 0:
        raise Missing(f"{' '.join(command[:4])} …: {(done.stderr or done.stdout).strip()[-TAIL:]}")
    return done.stdout
