"""Each filter of `list` uses an index: plans over a hundred thousand instances and their outputs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pgflow.core.models.filters import Filters
from pgflow.database.connect import Connection, connect
from pgflow.database.statement import run
from pgflow.store import instance
from tests.conftest import Server

ROWS = 100_000

# One in a hundred instances has failed and one waits. A few hundred are of a rare workflow, and the newest ones are of
# another workflow, so that a scan from the end would discard many rows.
FILL = f"""
    insert into pgflow.instances (id, workflow, version, status, finished_at, input, metadata, tags)
    select
        'order::' || g, case when g > {ROWS} * 0.6 then 'Common' when g % 500 = 0 then 'Rare_Flow' else 'OldFlow' end,
        1 + (g % 10 = 0)::integer, s.status, case when s.status not in ('waiting', 'running') then now() end,
        jsonb_build_object('customer', g % 5000, 'kind', case when g % 2 = 0 then 'gift' else 'order' end),
        jsonb_build_object('tenant', 't' || g % 2000), array['shop', 'tag' || g % 3000]
    from generate_series(1, {ROWS}) g
    cross join lateral (select case g % 100 when 0 then 'failed' when 1 then 'waiting' else 'completed' end) s (status);
    insert into pgflow.step_results (run, step, event, attempt, started_at, output)
    select i.run, s.step, 'ok', 1, now(), jsonb_build_object('receipt', 'r' || i.run, 'bank', 'b' || i.run % 3000)
    from pgflow.instances i cross join (values ('charge'), ('ship')) s (step);
    insert into pgflow.jobs (run, step, state, run_at)
    select run, 'b', 'parked', null from pgflow.instances where status = 'waiting';
"""  # noqa: S608 -- the constant above

SHAPES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "oldest first": {"order": "oldest"},
    "a page": {"before": ROWS // 2},
    "a page, oldest first": {"after": ROWS // 2, "order": "oldest"},
    "id": {"id": "order::777"},
    "unknown id": {"id": "order::unknown"},
    "failed": {"status": "failed"},
    "failed, oldest first": {"status": "failed", "order": "oldest"},
    "running, of which there are none": {"status": "running"},
    "completed": {"status": "completed"},
    "completed, oldest first": {"status": "completed", "order": "oldest"},
    "completed, a page": {"status": "completed", "before": ROWS // 2},
    "all final statuses": {"status": ["completed", "failed", "cancelled"]},
    "completed and version": {"status": "completed", "version": 2},
    "completed and tags": {"status": "completed", "tags": ["tag7"]},
    "completed, of a rare workflow": {"status": "completed", "workflow": "Rare_Flow"},
    "version of a rare workflow": {"workflow": "Rare_Flow", "version": 2},
    "ended badly": {"status": ["failed", "cancelled"]},
    "active": {"status": ["pending", "running", "waiting"]},
    "version": {"version": 2},
    "family": {"family": "Rare_"},
    "unknown family": {"family": "Rare%"},
    "tags": {"tags": ["tag7"]},
    "two tags": {"tags": ["shop", "tag7"]},
    "metadata": {"metadata": {"tenant": "t9"}},
    "input": {"input": {"customer": 33}},
    "unknown input": {"input": {"customer": -1}},
    "a common input": {"input": {"kind": "gift"}},
    "output": {"steps": {"charge": {"receipt": "r77"}}},
    "unknown output": {"steps": {"charge": {"receipt": "r0"}}},
    "outputs of two steps": {"steps": {"charge": {"bank": "b9"}, "ship": {"receipt": "r9"}}},
    "workflow": {"workflow": "Rare_Flow"},
    "workflow, all of them old": {"workflow": "OldFlow"},
    "unknown workflow": {"workflow": "Nothing"},
    "workflow and version": {"workflow": "OldFlow", "version": 2},
    "workflow and status": {"workflow": "OldFlow", "status": "failed"},
    "workflow, status and page": {"workflow": "Common", "status": "waiting", "before": ROWS - 100},
    "workflow and input": {"workflow": "Common", "input": {"customer": 33}},
    "workflow, status and tags": {"workflow": "Common", "status": "completed", "tags": ["tag7"]},
    "status and metadata": {"status": "failed", "metadata": {"tenant": "t100"}},
    "workflow and output": {"workflow": "Common", "steps": {"ship": {"bank": "b9"}}},
    "input, metadata and tags": {"input": {"kind": "gift"}, "metadata": {"tenant": "t8"}, "tags": ["shop"]},
}


@pytest.fixture(scope="module")
def full(server: Server, migrated_database: Callable[[Server], str]) -> Iterator[Connection]:
    """A connection to a database with many instances."""
    dsn = migrated_database(server)
    with connect(dsn, "migrate") as conn:
        for statement in FILL.split(";\n")[:-1]:
            conn.execute(statement.encode())
        # Exact statistics, computed once: a plan must not depend on a sample.
        for table in ("instances", "step_results"):
            conn.execute(f"alter table pgflow.{table} set (autovacuum_enabled = off)".encode())
        conn.execute("set default_statistics_target = 1000")
        conn.execute("vacuum analyze")
    with connect(dsn, "client") as conn:
        yield conn


def plan(conn: Connection, filters: Filters, *, whole: bool = False) -> dict[str, Any]:
    statement = instance.list("pgflow", filters, whole=whole)
    assert statement.prepare is False  # a generic plan could not remove conditions on null parameters
    query = f"explain (analyze, timing off, summary off, format json) {statement.query}"
    row = conn.execute(query.encode(), statement.params).fetchone()
    assert row is not None
    found: dict[str, Any] = row[0][0]["Plan"]
    return found


def walk(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from walk(child)


@pytest.mark.parametrize("name", SHAPES)
def test_a_filter_scans_no_large_table_and_discards_few_rows(name: str, full: Connection) -> None:
    options = dict(SHAPES[name])
    filters = Filters.of(options, options.pop("workflow", None))

    nodes = list(walk(plan(full, filters)))

    scans = [node for node in nodes if node["Node Type"] == "Seq Scan"]
    assert not scans, json.dumps(nodes[0], indent=1)[:6000]
    discarded = sum(node.get("Rows Removed by Filter", 0) * node["Actual Loops"] for node in nodes)
    assert discarded < ROWS / 10, json.dumps(nodes[0], indent=1)[:6000]


def test_a_list_of_whole_instances_scans_no_large_table_either(full: Connection) -> None:
    with full.transaction(force_rollback=True):
        full.execute("insert into pgflow.signals (run, name) select g, 's' from generate_series(1, 20000) g")
        full.execute(
            "insert into pgflow.scheduled_signals (run, step, name, due_at)"
            " select g, 'a', 's', now() from generate_series(1, 20000) g"
        )
        full.execute("analyze pgflow.signals, pgflow.scheduled_signals")
        nodes = list(walk(plan(full, Filters.of_query({"status": "failed", "limit": 20}), whole=True)))
    assert not [node for node in nodes if node["Node Type"] == "Seq Scan"]


@pytest.mark.parametrize(
    ("index", "options"),
    [
        ("instances_by_content", {"input": {"customer": 33}}),
        ("instances_by_content", {"metadata": {"tenant": "t9"}}),
        ("instances_by_content", {"tags": ["tag7"]}),
        ("instances_by_any_status", {"status": "failed"}),
        ("instances_by_workflow", {"family": "Rare_"}),
        ("instances_by_id", {"id": "order::777"}),
        ("step_results_by_output", {"steps": {"charge": {"receipt": "r77"}}}),
    ],
)
def test_each_filter_has_its_index(index: str, options: dict[str, Any], full: Connection) -> None:
    assert index in {node.get("Index Name") for node in walk(plan(full, Filters.of(options)))}


def test_filters_find_the_same_instances_as_in_memory(full: Connection) -> None:
    everything = run(full, instance.list("pgflow", Filters(), whole=True))
    for name, shape in SHAPES.items():
        options = dict(shape)
        filters = Filters.of(options, options.pop("workflow", None))
        found = [each.run for each in run(full, instance.list("pgflow", filters))]
        assert found == [each.run for each in filters.page(everything)], name


def test_completed_instances_are_found_where_they_are_few(full: Connection) -> None:
    """Most instances are active, as after a bulk start: a scan from the end would read all of them."""
    with full.transaction(force_rollback=True):
        full.execute("update pgflow.instances set status = 'pending', finished_at = null where run % 1000 <> 2")
        full.execute("analyze pgflow.instances")
        for options in ({"status": "completed"}, {"status": "completed", "order": "oldest"}):
            nodes = list(walk(plan(full, Filters.of({**options, "limit": 200}))))
            assert "instances_by_any_status" in {node.get("Index Name") for node in nodes}
            discarded = sum(node.get("Rows Removed by Filter", 0) * node["Actual Loops"] for node in nodes)
            assert discarded < 1000, json.dumps(nodes[0], indent=1)[:6000]
