"""Read the documentation as its reader does: README.md and the guides in pgflow/docs, block by block."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Timer

__all__ = ["BLOCK_TIMEOUT", "PAGES", "README", "ROOT", "Block", "Page", "Workspace", "masked", "needed_files", "page"]

ROOT = Path(__file__).parents[2]
BLOCK_TIMEOUT = 60.0  # seconds

FENCED = re.compile(r"^```(?P<language>\w+)(?: (?P<label>\S+))?\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
# The unit of a duration depends on its length, so it is part of the number.
NUMBER = re.compile(r"\d+(?:[.,:-]\d+)*Z?(?:ms|s|m|h)?(?: \d+s)?")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: ```` ```python flow.py ```` has the language python and the label flow.py."""

    page: str
    line: int
    language: str
    label: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def command(self) -> str:
        """Its first line. The tests' lists of exceptions name shell blocks by it."""
        return self.text.partition("\n")[0]


@dataclass(frozen=True, slots=True)
class Page:
    """A Markdown file; `name` is its path below the root of the checkout."""

    name: str
    text: str

    def __str__(self) -> str:
        return self.name

    @property
    def blocks(self) -> list[Block]:
        """The fenced blocks in order."""
        return [
            Block(
                self.name,
                self.text.count("\n", 0, found.start()) + 1,
                found["language"],
                found["label"] or "",
                found["text"],
            )
            for found in FENCED.finditer(self.text)
        ]

    @property
    def prose(self) -> str:
        """The text without its fenced blocks."""
        return FENCED.sub("", self.text)

    @property
    def files(self) -> dict[str, str]:
        """The Python files that the page builds up, by name."""
        found: dict[str, str] = {}
        for block in self.blocks:
            if block.language == "python":
                found[block.label] = found.get(block.label, "") + block.text
        return found

    def table(self, first_heading: str) -> list[list[str]]:
        """Return the rows of the table whose first column has this heading, each a list of cells, without the head."""
        for table in re.findall(r"(?:^\|.*\|\n)+", self.text, re.MULTILINE):
            rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
            if rows[0][0] == first_heading:
                return rows[2:]
        raise AssertionError(f"{self.name} has no table with the heading {first_heading!r}")


@cache
def page(name: str) -> Page:
    """Read a page."""
    return Page(name, (ROOT / name).read_text(encoding="utf-8"))


README = page("README.md")
PAGES = [README, *(page(f"pgflow/docs/{path.name}") for path in sorted((ROOT / "pgflow/docs").glob("*.md")))]


def needed_files(reader: Page) -> dict[str, str]:
    """Return the Python files of other pages that the code of this page imports, or names as `module:app`."""
    code = "".join(block.text for block in reader.blocks)
    return {
        name: text
        for other in PAGES
        if other != reader
        for name, text in other.files.items()
        if re.search(
            rf"^\s*(?:from|import) {Path(name).stem}\b|\b{Path(name).stem}:app\b|{re.escape(name)}", code, re.M
        )
    }


def masked(text: str) -> list[str]:
    """Return the lines of an output without what differs from run to run: numbers, times, widths of columns."""
    return [" ".join(NUMBER.sub("#", line).split()) for line in text.strip().splitlines()]


@dataclass(frozen=True, slots=True)
class Workspace:
    """The reader's folder, with a database in PGFLOW_DSN and `pgflow` and `python` on the PATH."""

    folder: Path
    dsn: str

    def prepare(self, files: dict[str, str] | None = None) -> None:
        """Install the two programs, and write files of other pages."""
        programs = self.folder / "programs"
        programs.mkdir()
        for name, arguments in (("python", ""), ("pgflow", " -c 'from pgflow.cli import main; main()'")):
            (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{arguments} "$@"\n')
            (programs / name).chmod(0o755)
        for name, text in (files or {}).items():
            (self.folder / name).write_text(text)

    @property
    def environment(self) -> dict[str, str]:
        """Our environment, without variables that select another database or colours."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "DATABASE_URL"))}
        path = f"{self.folder / 'programs'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        # Warnings are errors for the reader's files as they are for ours.
        return {**kept, "PATH": path, "PYTHONPATH": str(ROOT), "PGFLOW_DSN": self.dsn, "PYTHONWARNINGS": "error"}

    def sh(self, text: str) -> subprocess.CompletedProcess[str]:
        """Run shell code and wait for its end."""
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            capture_output=True,
            check=False,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=BLOCK_TIMEOUT,
        )

    @property
    def stderr(self) -> str:
        """What the process of `process` has written to stderr."""
        return (self.folder / "stderr.txt").read_text()

    @contextmanager
    def process(self, text: str) -> Iterator[subprocess.Popen[str]]:
        """Run a command in the background; it is killed at the end of the context, or after BLOCK_TIMEOUT."""
        with (self.folder / "stderr.txt").open("w") as stderr:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {text}"],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        limit = Timer(BLOCK_TIMEOUT, process.kill)  # ends a read of its output that would block for ever
        limit.start()
        try:
            yield process
        finally:
            limit.cancel()
            process.kill()
            process.communicate()
