"""Read README.md as its reader does: its blocks of code in order, its tables, and a desk to try them out at."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Timer

__all__ = ["README", "ROOT", "Block", "Desk", "blocks", "masked", "prose", "tables"]

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PATIENCE = 60.0  # seconds, for one block

FENCED = re.compile(r"^```(?P<language>\w+)(?: (?P<label>\S+))?\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"\d+(?:[.,:-]\d+)*Z?(?:ms|s|m|h)?(?: \d+s)?")  # a duration's unit depends on its length


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: ```` ```python flow.py ```` has the language python and the label flow.py."""

    line: int
    language: str
    label: str
    text: str

    def __str__(self) -> str:
        return f"README.md:{self.line}"

    @property
    def command(self) -> str:
        """Its first line, which names a shell block in this file's lists."""
        return self.text.partition("\n")[0]


def blocks() -> list[Block]:
    """Return the fenced blocks in order."""
    return [
        Block(README.count("\n", 0, found.start()) + 1, found["language"], found["label"] or "", found["text"])
        for found in FENCED.finditer(README)
    ]


def prose() -> str:
    """Return README without its fenced blocks."""
    return FENCED.sub("", README)


def tables() -> dict[str, list[list[str]]]:
    """Return the rows of each table by the first cell of its head; cells are plain text, the head is left out."""
    found: dict[str, list[list[str]]] = {}
    for table in re.findall(r"(?:^\|.*\|\n)+", README, re.MULTILINE):
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
        found[rows[0][0]] = rows[2:]
    return found


def masked(text: str) -> list[str]:
    """Return the lines of an output without what differs from run to run: numbers, times, widths of columns."""
    return [" ".join(NUMBER.sub("#", line).split()) for line in text.strip().splitlines()]


@dataclass(frozen=True, slots=True)
class Desk:
    """Where the reader sits: a folder for the files, a database in PGFLOW_DSN, `pgflow` and `python` on the PATH."""

    folder: Path
    dsn: str

    def prepare(self) -> None:
        """Put the two programs in place."""
        programs = self.folder / "programs"
        programs.mkdir()
        for name, arguments in (("python", ""), ("pgflow", " -c 'from pgflow.cli import main; main()'")):
            (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{arguments} "$@"\n')
            (programs / name).chmod(0o755)

    @property
    def environment(self) -> dict[str, str]:
        """Ours, without what would point at another database, or at colours."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "DATABASE_URL"))}
        path = f"{self.folder / 'programs'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        # Warnings are errors for the reader's files as they are for ours.
        return {**kept, "PATH": path, "PYTHONPATH": str(ROOT), "PGFLOW_DSN": self.dsn, "PYTHONWARNINGS": "error"}

    def sh(self, text: str) -> subprocess.CompletedProcess[str]:
        """Run a block of shell to its end."""
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            capture_output=True,
            check=False,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=PATIENCE,
        )

    @contextmanager
    def process(self, text: str) -> Iterator[subprocess.Popen[str]]:
        """Run a command that goes on until it is stopped; it outlives neither the block nor our patience."""
        with (self.folder / "said.txt").open("w") as said:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {text}"],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
            )
        limit = Timer(PATIENCE, process.kill)  # so that reading what it says cannot last for ever either
        limit.start()
        try:
            yield process
        finally:
            limit.cancel()
            process.kill()
            process.communicate()
