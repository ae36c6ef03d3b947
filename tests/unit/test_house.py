"""Rules for all files: the top level, SQL files and their functions, and texts that no file may contain."""

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
    """Return every file of the project: tracked or new; without git, all that .gitignore does not match."""
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
    """Return paths relative to the root."""
    return [str(path.relative_to(ROOT)) for path in paths]


def placeholders_in_literals(query: str) -> list[str]:
    """Return the string literals of a query that hold a placeholder, which PostgreSQL would not replace."""
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


def test_the_top_level_has_the_fixed_entries_only() -> None:
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


def test_each_sql_file_begins_with_a_comment() -> None:
    silent = [
        path for path in [*below("sql", "*.sql"), *below("tests", "*.sql")] if not re.match(r"-- \w", path.read_text())
    ]
    assert named(silent) == []


def test_no_literal_contains_a_placeholder() -> None:
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


def test_no_file_contains_a_path_of_a_machine() -> None:
    place = re.compile(r"(?<![\w.}\"'$])/(?:root|home|Users|work)/\w")
    found = [
        path for path in project_files() if path.suffix != ".png" and place.search(path.read_text(errors="replace"))
    ]
    assert named(found) == []


def test_no_script_or_pin_names_a_host() -> None:
    address = re.compile(r"\w://|^--?(?:f|i|index-url|extra-index-url|find-links|trusted-host)\b", re.MULTILINE)
    found = [path for path in [*below("bin"), *below(".ci")] if address.search(path.read_text())]
    assert named(found) == []


def test_each_script_is_executable_and_strict() -> None:
    scripts = [path for path in [*below("bin"), *below(".ci")] if not path.suffix]
    assert {"setup", "demo", "test", "check", "build", "run"} <= {path.name for path in scripts}
    assert named([path for path in scripts if not os.access(path, os.X_OK)]) == []
    assert named([path for path in scripts if not path.read_text().startswith("#!/usr/bin/env bash\n# ")]) == []
    assert named([path for path in scripts if "\nset -euo pipefail\n" not in path.read_text()]) == []


def test_no_file_is_marked_unfinished() -> None:
    # concatenated, so that this file does not match
    marks = re.compile(
        "|".join(["TO" + "DO", "FIX" + "ME", "X" + "XX", r"pytest\.skip" + r"\(", "NotImplemented" + "Error"])
    )
    source = [*below("pgflow"), *below("sql"), *below("tests"), *below("bin")]
    left = [path for path in source if path.suffix in {".py", ".sql", ".md", ""} and marks.search(path.read_text())]
    assert named(left) == []
