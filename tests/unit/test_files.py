"""SQL files are found, and the schema's name is replaced in qualified names and nowhere else."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgflow.database import files
from pgflow.errors import ConfigError


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder in place of sql/."""
    monkeypatch.setattr(files, "root", lambda: tmp_path)
    files.load.cache_clear()
    yield tmp_path
    files.load.cache_clear()


@pytest.mark.parametrize(
    ("text", "loaded"),
    [
        ("select * from pgflow.jobs j", 'select * from "orders".jobs j'),
        ('update pgflow."jobs"', 'update "orders"."jobs"'),
        ("select 'pgflow.jobs'::regclass", "select '\"orders\".jobs'::regclass"),
        ("x<pgflow.now()and", 'x<"orders".now()and'),
        ("notify 'pgflow:default'", "notify 'pgflow:default'"),
        ("hint = 'Run pgflow migrate'", "hint = 'Run pgflow migrate'"),
        ("-- A table of pgflow.\n-- ...", "-- A table of pgflow.\n-- ..."),
        ("select my_pgflow.a, x.pgflow.b", "select my_pgflow.a, x.pgflow.b"),
    ],
)
def test_a_qualifier_follows_the_schema_and_nothing_else_does(tree: Path, text: str, loaded: str) -> None:
    (tree / "some.sql").write_text(text)
    assert files.load("some.sql", "orders") == loaded
    assert files.load("some.sql") == text


@pytest.mark.parametrize("name", ["", "Orders", "1st", "a-b", 'a"b', "a'b", "x" * 64, "orders\n"])
def test_a_schema_name_that_is_not_plain_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="is not a valid schema name"):
        files.load(files.list_files("migrations")[0], name)


def test_every_file_of_the_tree_is_listed_in_order_and_can_be_loaded(tree: Path) -> None:
    for name in ("queries/b/two.sql", "queries/a/one.sql", "queries/README.md"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text("-- here\n")
    assert files.list_files("queries") == ["queries/a/one.sql", "queries/b/two.sql"]
    assert files.list_files() == ["queries/a/one.sql", "queries/b/two.sql"]
    assert files.list_files("elsewhere") == []
    assert files.load("queries/a/one.sql") == "-- here\n"
    with pytest.raises(FileNotFoundError):
        files.load("queries/a/three.sql")


def test_the_real_tree_matches_its_readme() -> None:
    folders = {"functions", "migrations", "queries", "roles"}
    assert {path.split("/")[0] for path in files.list_files()} == folders


def test_the_two_list_queries_differ_only_in_the_outputs() -> None:
    plain, by_output = (
        files.load(f"queries/instance/{name}.sql").partition("\nselect\n")[2].splitlines()
        for name in ("list", "list_by_output")
    )
    more = [line for line in by_output if line not in plain]
    kept = [line for line in by_output if line in plain]
    assert [line for line in plain if line.strip() != ")"] == [line for line in kept if line.strip() != ")"]
    assert more[0] == "    and i.run in ("
    assert all("pgflow.instances" not in line for line in more)


def test_every_file_is_ascii() -> None:
    # A client sends it in its own encoding, and a tool behind `--sql` may assume another one for the file.
    assert {path: text for path in files.list_files() if not (text := files.load(path)).isascii()} == {}


LITERAL = re.compile(r"--[^\n]*|(?P<prefix>\b[eE])?'(?P<text>(?:[^']|'')*)'")


def test_no_literal_depends_on_standard_conforming_strings() -> None:
    # Functions are parsed when called, with the caller's standard_conforming_strings.
    found = [
        (path, match[0])
        for path in (*files.list_files("queries"), *files.list_files("functions"))
        for match in LITERAL.finditer(files.load(path))
        if "\\" in (match["text"] or "") and not match["prefix"]
    ]
    assert found == []
