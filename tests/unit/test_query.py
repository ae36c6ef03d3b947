"""The filter language: what it reads, what it refuses and where, and what it matches in memory."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgflow.core.models.instance import Instance
from pgflow.core.models.query import Place, Subject, parse
from pgflow.errors import FilterFault, InvalidFilter

NOW = datetime(2030, 1, 31, 12, tzinfo=UTC)


def subject(*places: Place, **fields: Any) -> Subject:
    given: dict[str, Any] = {
        **{"run": 7, "id": "orderid::abc123", "workflow": "OrderFlow", "version": 2, "status": "failed"},
        **{"input": {}, "steps": {}, "history": (), "waiting_for": (), "metadata": {}, "tags": ("gift", "vip")},
        **{"error": {"type": "ConnectionError", "reason": "Timed Out", "step": "charge", "attempt": 3}},
        **{"created_at": NOW - timedelta(hours=3), "finished_at": NOW},
    }
    return Subject.of_instance(Instance(**{**given, **fields}), places, NOW)


FAILED = Place("charge", queue="mail", attempt=3)


@pytest.mark.parametrize(
    ("text", "document"),
    [
        ("", {}),
        ("state:failed,cancelled", {"state": ["failed", "cancelled"]}),
        ("status:failed", {"state": ["failed"]}),
        ("tag:gift  tag:a,b\t-tag:vip", {"tag": [["gift"], ["a", "b"]], "not": {"tag": ["vip"]}}),
        ('error:"timed \\"out\\", again"', {"error": [['timed "out", again']]}),
        ("age:>2h age:<=1d12h", {"older_than": 7200.0, "younger_than": 129_600.0}),
        ("-age:>2h", {"younger_than": 7200.0}),
        ("age:>1h age:>2h", {"older_than": 7200.0}),
        ("attempt:>3 attempt:<=9", {"attempt": {"min": 4, "max": 9}}),
        ("attempt:1,2", {"attempt": {"any": [1, 2]}}),
        ("attempt:1,2 attempt:>1", {"attempt": {"any": [1, 2], "min": 2}}),
        ("attempt:>1 attempt:1,2", {"attempt": {"any": [1, 2], "min": 2}}),
        ("-attempt:>=3", {"attempt": {"max": 2}}),
        ("priority:<0 -priority:-5", {"priority": {"max": -1}, "not": {"priority": [-5]}}),
        ("run:7,8 version:2 worker:1", {"run": [7, 8], "version": [2], "worker": [1]}),
        ("input.tenant:7", {"input": 'exists($."tenant" ? (@ == 7 || @ == "7"))'}),
        ('input.tenant:"7"', {"input": 'exists($."tenant" ? (@ == "7"))'}),
        ('meta."a.b".c:true', {"metadata": 'exists($."a.b"."c" ? (@ == true || @ == "true"))'}),
        (
            "input.a:x -input.b:null",
            {"input": 'exists($."a" ? (@ == "x")) && !exists($."b" ? (@ == null || @ == "null"))'},
        ),
        ('input.a:"\\") || true"', {"input": 'exists($."a" ? (@ == "\\") || true"))'}),
        ('id:orderid::abc123,"x y"', {"id": ["orderid::abc123", "x y"]}),
        ('tag:""', {"tag": [[""]]}),
    ],
)
def test_a_filter_is_read(text: str, document: dict[str, Any]) -> None:
    assert parse(text).document() == document


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("statee:failed", 1, "there is no key 'statee'"),
        ("tag:a colour:red", 7, "there is no key 'colour'"),
        ("failed", 1, "'failed' is not a filter"),
        ("state:", 1, "state needs a value"),
        ("state:done", 7, "there is no state 'done'"),
        ("state:failed,done", 14, "there is no state 'done'"),
        ("queue:a queue:b", 9, "queue is given twice"),
        ("tag:a,,b", 7, "a value is empty"),
        ("tag:a, b:c", 6, "a value is missing after the comma"),
        ('error:"open', 7, "a quote is not closed"),
        ("age:2h", 5, "age needs a comparison"),
        ("age:>2", 6, "'2' is not a duration"),
        ("age:>999999999w", 6, "'999999999w' is not a duration"),
        ("attempt:>x", 10, "attempt must be a whole number"),
        ("attempt:>1,2", 12, "attempt takes one comparison"),
        ("priority:40000", 10, "priority must be a whole number from -32768 to 32767"),
        ("run:-1", 5, "run must be a whole number from 0"),
        ("queue:>a", 7, "queue cannot be compared"),
        ("input:7", 1, "input needs a path"),
        ("input..a:7", 1, "input needs a path"),
        ("queue.a:7", 1, "queue has no path"),
        ("tag:a\0b", 5, "a character that PostgreSQL cannot store"),
        ("input.x:1 args.y:2", 11, "args does not apply to instances of workflows"),
        ("task:send step:charge", 11, "step does not apply to tasks"),
    ],
)
def test_a_fault_is_reported_with_its_position(text: str, column: int, message: str) -> None:
    with pytest.raises(InvalidFilter) as caught:
        parse(text)
    fault = caught.value.faults[0]
    assert (fault.start + 1, message in fault.message) == (column, True), caught.value
    assert f"column {column}: {fault.message}" in str(caught.value)


def test_all_faults_are_reported_at_once_and_name_the_keys() -> None:
    with pytest.raises(InvalidFilter) as caught:
        parse("stat:failed age:2h tag:ok prio:1")
    assert [each.start for each in caught.value.faults] == [0, 16, 26]
    assert "Did you mean state" in (caught.value.hint or "")
    assert "queue, step, worker" in (caught.value.hint or "")


def test_a_filter_for_instances_of_workflows_takes_no_key_of_tasks() -> None:
    assert parse("tag:a").kinds == ("workflow", "task")
    assert parse("workflow:A").kinds == ("workflow",)
    assert parse("args.a:1").kinds == ("task",)
    with pytest.raises(InvalidFilter, match="task does not apply"):
        parse("task:send", "workflow")


@given(st.text(alphabet='ab: ,"\\-.<>1h\n\0', max_size=40))
def test_any_text_is_read_or_refused_with_positions_inside_it(text: str) -> None:
    faults: tuple[FilterFault, ...] = ()
    try:
        parse(text).document()
    except InvalidFilter as error:
        faults = error.faults
    assert all(0 <= each.start < each.end <= max(len(text), each.start + 1) for each in faults)


@given(st.text(min_size=1, max_size=30))
def test_a_quoted_value_is_taken_as_it_is(value: str) -> None:
    quoted = '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if "\0" in value or any("\ud800" <= each <= "\udfff" for each in value):
        with pytest.raises(InvalidFilter, match="cannot store"):
            parse(f"tag:{quoted}")
    else:
        assert parse(f"tag:{quoted}").document() == {"tag": [[value]]}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("state:failed", True),
        ("-state:failed", False),
        ("workflow:OrderFlow,Other version:2 run:7", True),
        ("id:abc123", True),
        ("id:orderid::abc123", True),
        ("id:abc", False),
        ("tag:gift tag:vip", True),
        ("tag:other,vip", True),
        ("-tag:other,vip", False),
        ("error:timed", True),
        ('error:"connectionerror: timed out"', True),
        ("error:refused", False),
        ("age:>2h age:<4h", True),
        ("age:>3h", False),
        ("queue:mail step:charge attempt:3", True),
        ("queue:mail attempt:>3", False),
        ("-queue:mail", False),
        ("-queue:other", True),
        ("worker:1", False),
        ("input.tenant:7", True),
        ('input.tenant:"7"', False),
        ("input.items.sku:a", True),
        ("input.items.sku:c", False),
        ("input.names:bob", True),
        ("-input.tenant:8", True),
        ("-input.missing:8", True),
        ("metadata.source:import", True),
    ],
)
def test_a_filter_matches_in_memory(text: str, matches: bool) -> None:
    given = {"tenant": 7, "items": [{"sku": "a"}, {"sku": "b"}], "names": ["ann", "bob"]}
    assert parse(text).matches(subject(FAILED, input=given, metadata={"source": "import"})) is matches


def test_the_conditions_on_a_job_hold_for_one_job() -> None:
    two = [Place("a", queue="mail", attempt=1), Place("b", queue="slow", attempt=5)]
    running = subject(*two, status="running", error=None)
    assert parse("queue:mail attempt:1").matches(running)
    assert not parse("queue:mail attempt:5").matches(running)
    assert not parse("-queue:slow").matches(running)
