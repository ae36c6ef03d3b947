"""What users import, the error tree, and settings."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

import pgflow
from pgflow import config, errors
from pgflow.errors import BadQueue, PgflowError
from tests.unit import surface

KINDS = [
    kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, PgflowError)
]  # fmt: skip


def test_the_exported_names_exist_and_are_sorted() -> None:
    assert pgflow.__all__ == sorted(pgflow.__all__)
    assert {name for name in pgflow.__all__ if getattr(pgflow, name, None) is None} == set()
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        getattr(pgflow, "Nothing")  # noqa: B009 -- a plain access would be a type error


def test_the_public_names_and_their_types_are_those_of_the_snapshot() -> None:
    # A change is one of the API: python -m tests.unit.surface rewrites the snapshot.
    assert surface.surface().splitlines() == surface.SNAPSHOT.read_text().splitlines()


def test_defining_workflows_loads_no_database_driver() -> None:
    unwanted = {"psycopg", "pgflow.store", "click", "cryptography"}
    code = f"import sys, pgflow; pgflow.Codec; print(sorted(sys.modules.keys() & {unwanted}))"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "[]"


def test_each_error_has_a_code_of_its_own_and_an_exit_code() -> None:
    codes = [kind.code for kind in KINDS]
    assert len(set(codes)) == len(codes)
    assert {kind.exit_code for kind in KINDS} == set(range(1, 8))
    assert all(kind.__doc__ for kind in KINDS)


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn: list[tuple[str, str]] = []
    above = ["PgflowError"]
    for line in (errors.__doc__ or "").splitlines():
        name = line.lstrip(" │├└─").partition(" ")[0]
        if "──" in line:
            depth = (line.index("──") - 5) // 4 + 1
            above[depth:] = [name]
            drawn.append((name, above[depth - 1]))
    assert sorted(drawn) == sorted(
        (kind.__name__, kind.__bases__[0].__name__) for kind in KINDS if kind is not PgflowError
    )
    assert sorted(errors.__all__) == sorted(kind.__name__ for kind in KINDS)


def test_a_hint_is_an_attribute_and_a_note_of_its_error() -> None:
    error = errors.Unreachable("no answer", hint="Start the server.")
    assert (str(error), error.hint, error.__notes__) == ("no answer", "Start the server.", ["Start the server."])
    assert errors.Unreachable("no answer").hint is None


def test_errors_are_also_builtin_exceptions() -> None:
    assert issubclass(errors.InvalidInput, ValueError)
    assert issubclass(errors.UnknownStep, LookupError)


def test_queues_are_read_from_text() -> None:
    assert config.parse_queues(["default=10", " mail=2 ", "slow"]) == {"default": 10, "mail": 2, "slow": 10}


@pytest.mark.parametrize(
    "texts", [[], [""], ["=3"], ["a b=3"], ["a=0"], ["a=-1"], ["a=x"], ["a="], ["a=²"], ["a=1", "a=2"]]
)
def test_an_invalid_queue_is_refused(texts: list[str]) -> None:
    with pytest.raises(BadQueue) as caught:
        config.parse_queues(texts)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("given", "environment", "dsn"),
    [
        ("x", {"PGFLOW_DSN": "y", "DATABASE_URL": "z"}, "x"),
        (None, {"PGFLOW_DSN": "y", "DATABASE_URL": "z"}, "y"),
        ("", {"PGFLOW_DSN": "", "DATABASE_URL": "z"}, "z"),
        (None, {}, ""),
    ],
)
def test_the_first_given_connection_string_is_used(given: Any, environment: dict[str, str], dsn: str) -> None:
    assert config.resolve_dsn(given, environment) == dsn


@pytest.mark.parametrize(
    ("given", "said", "is_there"),
    [(None, None, False), (None, " On ", True), (None, "0", False), (True, "no", True), (False, "1", False)],
)
def test_a_pooler_is_declared_by_argument_or_variable(given: bool | None, said: str | None, is_there: bool) -> None:
    environment = {} if said is None else {"PGFLOW_POOLER": said}
    assert config.resolve_pooler(given, environment) is is_there


def test_a_pooler_variable_that_is_not_a_boolean_is_refused() -> None:
    with pytest.raises(errors.ConfigError, match="PGFLOW_POOLER must be 1 or 0, got 'maybe'"):
        config.resolve_pooler(None, {"PGFLOW_POOLER": "maybe"})
