"""The house is in order: what lies at the top, what SQL files look like, and what no file of the project says."""

import ast
import os
import re
import subprocess
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOP_LEVEL = {"LICENSE", "README.md", "bin", "pgflow", "pyproject.toml", "sql", "tests"}
NOUNS = {"definition", "instance", "job", "migration", "queue", "signal", "worker"}

# One alternative per way in which SQL sets text apart; only the first group is a string literal.
SQL_TEXT = re.compile(
    r"""
      (?P<literal> [eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' )
    | "(?:[^"]|"")*"
    | --[^\n]*
    | /\*.*?\*/
    """,
    re.VERBOSE | re.DOTALL,
)
PLACEHOLDER = re.compile(r"%\(\w+\)|%[sbt]\b")


@cache
def project_files() -> list[Path]:
    """Return every file of the project: what git knows or would add; without git, what .gitignore does not name."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        ignored = [".git/", *(ROOT / ".gitignore").read_text().split()]
        names = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if path.is_file()]
        kept = [name for name in names if not any(fnmatch(f"/{name}", f"*/{each}*") for each in ignored)]
    else:
        kept = listed.split("\0")
    return sorted(ROOT / name for name in kept if name and (ROOT / name).is_file())


def below(folder: str, pattern: str = "*") -> list[Path]:
    """Return the project's files below a folder whose names match a pattern."""
    return [path for path in project_files() if path.is_relative_to(ROOT / folder) and fnmatch(path.name, pattern)]


def named(paths: list[Path]) -> list[str]:
    """Return paths as a report shows them."""
    return [str(path.relative_to(ROOT)) for path in paths]


def placeholders_in_literals(query: str) -> list[str]:
    """Return the string literals of a query that hold a placeholder, which PostgreSQL would take for mere text."""
    literals = [found["literal"] for found in SQL_TEXT.finditer(query) if found["literal"]]
    return [literal for literal in literals if PLACEHOLDER.search(literal)]


def query_functions() -> set[str]:
    """Return "<noun>.<verb>" of each function in the store's noun modules that builds a Statement."""
    nouns = NOUNS | {path.parent.name for path in below("sql/queries", "*.sql")}
    return {
        f"{noun}.{node.name}"
        for noun in nouns
        if (module := ROOT / "pgflow" / "store" / f"{noun}.py").exists()
        for node in ast.parse(module.read_text()).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and node.returns is not None
        if re.match(r"(\w+\.)?Statement\b", ast.unparse(node.returns).strip("'\""))
    }


def test_the_top_level_holds_what_it_should_and_nothing_else() -> None:
    tops = {path.relative_to(ROOT).parts[0] for path in project_files()}
    assert {top for top in tops if not top.startswith(".")} == TOP_LEVEL


def test_sql_holds_no_python() -> None:
    # hatchling would refuse the editable install
    assert named(below("sql", "*.py")) == []


def test_each_query_is_a_noun_and_a_verb() -> None:
    odd = [path for path in below("sql/queries", "*.sql") if len(path.relative_to(ROOT / "sql" / "queries").parts) != 2]
    assert named(odd) == []


def test_each_query_has_its_function_and_each_function_its_query() -> None:
    queries = {f"{path.parent.name}.{path.stem}" for path in below("sql/queries", "*.sql")}
    assert queries == query_functions()


def test_each_sql_file_says_first_what_it_does() -> None:
    silent = [
        path for path in [*below("sql", "*.sql"), *below("tests", "*.sql")] if not re.match(r"-- \w", path.read_text())
    ]
    assert named(silent) == []


def test_no_placeholder_stands_inside_a_literal() -> None:
    found = {
        str(path.relative_to(ROOT)): placeholders_in_literals(path.read_text())
        for path in below("sql/queries", "*.sql")
    }
    assert {path: literals for path, literals in found.items() if literals} == {}


@pytest.mark.parametrize(
    ("query", "literals"),
    [
        ("select now() + interval '%(ttl)s seconds'", ["'%(ttl)s seconds'"]),
        ("select E'it\\'s %s'", ["E'it\\'s %s'"]),
        ("select 'it''s', %(ttl)s::integer -- isn't '%(ttl)s'", []),
        ('select "\'", %(ttl)s, "\'"', []),
        ("select 'a' like '100%%' and 5 %% 2 = 1", []),
    ],
)
def test_the_search_for_placeholders_knows_what_a_literal_is(query: str, literals: list[str]) -> None:
    assert placeholders_in_literals(query) == literals


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    place = re.compile(r"(?<![\w.}\"'$])/(?:root|home|Users|work)/\w")
    told = [
        path for path in project_files() if path.suffix != ".png" and place.search(path.read_text(errors="replace"))
    ]
    assert named(told) == []


def test_no_script_or_pin_names_a_host() -> None:
    address = re.compile(r"\w://|^--?(?:f|i|index-url|extra-index-url|find-links|trusted-host)\b", re.MULTILINE)
    told = [path for path in [*below("bin"), *below(".ci")] if address.search(path.read_text())]
    assert named(told) == []


def test_each_script_runs_as_it_lies() -> None:
    scripts = [path for path in [*below("bin"), *below(".ci")] if not path.suffix]
    assert {"setup", "demo", "test", "check", "build", "run"} <= {path.name for path in scripts}
    assert named([path for path in scripts if not os.access(path, os.X_OK)]) == []
    assert named([path for path in scripts if not path.read_text().startswith("#!/usr/bin/env bash\n# ")]) == []
    assert named([path for path in scripts if "\nset -euo pipefail\n" not in path.read_text()]) == []


def test_nothing_unfinished_is_left() -> None:
    # put together so that this file does not accuse itself
    marks = re.compile(
        "|".join(["TO" + "DO", "FIX" + "ME", "X" + "XX", r"pytest\.skip" + r"\(", "NotImplemented" + "Error"])
    )
    source = [*below("pgflow"), *below("sql"), *below("tests"), *below("bin")]
    left = [path for path in source if path.suffix in {".py", ".sql", ".md", ""} and marks.search(path.read_text())]
    assert named(left) == []
