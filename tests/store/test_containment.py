"""JSON containment in memory equals that of PostgreSQL, and JSON round-trips through PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pgflow import Context, Done, Instance, Ok, Pgflow, Unique, Workflow, step
from pgflow.core.models.instance import Entry
from pgflow.core.values.containment import contains
from pgflow.database.connect import Connection, connect

AT = datetime(2030, 1, 1, tzinfo=UTC)


@step
def only(ctx: Context[Any]) -> Ok:
    return Ok("done")


class Kept(Workflow[Any], unique=Unique("kept")):
    initial = only
    transitions = {only: {"done": Done}}


# Few values, so that equal ones are frequent.
SMALL = st.sampled_from([None, True, False, 0, 1, 1.0, -0.0, 2, 1e23, 10**23, "", "a", "b", "1"])
FEW = st.recursive(
    SMALL,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3),
    max_leaves=8,
)
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**400), 10**400)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5), max_leaves=20
)


@pytest.fixture(scope="module")
def reader(migrated: str) -> Iterator[Connection]:
    with connect(migrated, "test") as conn:
        yield conn


@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@example(["a"], "a")
@example([["a"]], "a")
@example("a", ["a"])
@example({"a": ["b"]}, {"a": "b"})
@example([1, True], [True, True])
@example([[1, 2], [3]], [[3, 3], [2]])
@example({}, [])
@example([], {})
@example([{}], [{}])
@example({"a": 1e23}, {"a": 10**23})
@given(FEW, FEW)
def test_containment_equals_that_of_postgresql(reader: Connection, whole: Any, part: Any) -> None:
    row = reader.execute("select %s::jsonb @> %s::jsonb", [json.dumps(whole), json.dumps(part)]).fetchone()
    assert row == (contains(whole, part),)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(JSON)
def test_each_value_contains_itself(reader: Connection, value: Any) -> None:
    assert contains(value, value)


@pytest.fixture(scope="module")
def app(migrated: str) -> Iterator[Pgflow]:
    app = Pgflow(migrated, workflows=[Kept])
    app.register()
    yield app
    app.close()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@example({"": [], "a": {}, "b": [[], [{}]]}, [1e23, 5e-324, 1.7976931348623157e308, -0.0, 10**4000])
@example("\u2028 ü \U0001f600 \\ \" '", {"\u2028": "\ud7ff"})
@given(JSON, JSON)
def test_json_round_trips_through_postgresql(app: Pgflow, given_input: Any, output: Any) -> None:
    entry = Entry("only", "done", AT, output=output)
    given_one = Instance(
        run=1, id="kept::a", workflow="Kept", version=1, status="completed", input=given_input,
        steps={"only": output}, history=(entry,), waiting_for=(), metadata={"m": given_input}, tags=(), error=None,
        created_at=AT, finished_at=AT,
    )  # fmt: skip
    app.storage.put(given_one)
    found = app.storage.get("kept::a")
    assert found.unreadable is None
    assert normalized(found.input) == normalized(given_input)
    assert normalized(found.metadata["m"]) == normalized(given_input)
    assert normalized(found.steps["only"]) == normalized(output)
    app.storage.put(replace(found, tags=("again",)))
    assert app.storage.get("kept::a") == replace(found, tags=("again",))


def normalized(value: Any) -> Any:
    """Return the value with comparable numbers: a float without a fraction may return as an integer."""
    match value:
        case bool():
            return value
        case float() | int():
            return float(value) if abs(value) < 1e300 else str(int(value))[:15]
        case list():
            return [normalized(each) for each in value]
        case dict():
            return {key: normalized(each) for key, each in value.items()}
    return value
