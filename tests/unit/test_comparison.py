"""The comparison with other queues: its tables are well formed, and each "yes" of pgflow has tests that exist."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "pgflow/docs/comparison.md"
HEAD = ["#", "feature", "pgflow", "Oban", "Oban Pro", "River", "Procrastinate", "PgQueuer", "DBOS", "Celery"]
CELLS = {"yes", "no", "partly", "paid", "?", "n/a"}
TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


@dataclass(frozen=True, slots=True)
class Section:
    """A group of features: their rows, the notes and the tests by row number."""

    title: str
    head: list[str]
    rows: list[list[str]]
    notes: dict[int, str]
    tests: list[tuple[int, str]]

    def __str__(self) -> str:
        return self.title

    @property
    def yes(self) -> str:
        """How a "yes" of pgflow is written: it leads to the heading above the section's tests."""
        return f"[yes](#tests-of-{self.title.lower().replace(' ', '-')})"

    @property
    def proved(self) -> set[int]:
        """The numbers of rows that have a test."""
        return {row for row, _ in self.tests}


def table(text: str) -> list[list[str]]:
    """Return the rows of the first table of a text, without the line below its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|")] for line in lines]
    assert set("".join(rows[1])) == {"-"}
    return rows[:1] + rows[2:]


def section(text: str) -> Section:
    """Read a section from its title on."""
    title, _, body = text.partition("\n")
    features, heading, tests = body.partition(f"\n### Tests of {title[0].lower()}{title[1:]}\n")
    assert heading, f"{title} has no list of tests"
    head, *rows = table(features)
    notes = re.findall(r"^- (\d+): (.*)$", features, re.MULTILINE)
    return Section(
        title=title,
        head=head,
        rows=rows,
        notes={int(number): note for number, note in notes},
        tests=[(int(number), test) for number, test in table(tests)[1:]],
    )


SECTIONS = [section(text) for text in PAGE.read_text(encoding="utf-8").split("\n## ")[1:]]
EVERY_SECTION = pytest.mark.parametrize("group", SECTIONS, ids=str)


def test_the_rows_are_numbered_over_all_sections() -> None:
    numbers = [int(row[0]) for group in SECTIONS for row in group.rows]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) > 70


@EVERY_SECTION
def test_each_table_has_a_column_for_each_queue_and_known_cells(group: Section) -> None:
    assert group.head == HEAD
    assert [row for row in group.rows if len(row) != len(HEAD)] == []
    assert [row for row in group.rows if not CELLS - {"paid"} >= {row[2].replace(group.yes, "yes")}] == []
    assert [row for row in group.rows if not set(row[3:]) <= CELLS] == []


@EVERY_SECTION
def test_each_yes_of_pgflow_has_a_test_and_no_refusal_has_one(group: Section) -> None:
    yes = {int(row[0]) for row in group.rows if row[2] == group.yes}
    partly = {int(row[0]) for row in group.rows if row[2] == "partly"}
    assert [row for row in group.rows if row[2] == "yes"] == [], "a yes leads to its tests"
    assert yes <= group.proved <= yes | partly


@EVERY_SECTION
def test_each_partly_has_a_note(group: Section) -> None:
    partly = {int(row[0]) for row in group.rows if "partly" in row}
    assert partly <= set(group.notes) <= {int(row[0]) for row in group.rows}


@cache
def names(path: str) -> frozenset[str]:
    """Return the names of the test functions of a file, without importing it."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return frozenset(each.name for each in tree.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef))


@EVERY_SECTION
def test_each_test_exists(group: Section) -> None:
    found = [(test, TEST.fullmatch(test)) for _, test in group.tests]
    assert [test for test, match in found if match is None] == []
    missing = [match[0] for _, match in found if match and (match[2] not in names(match[1]))]
    assert missing == []
