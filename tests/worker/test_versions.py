"""Versions side by side on a real server: each instance keeps the one that it started with."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any

import pytest

from pgflow import Context, Done, Ok, Pgflow, Unique, WaitForEvent, Workflow, step
from pgflow.core.definition.unique import Scope
from pgflow.database.connect import Connection
from pgflow.database.statement import run
from pgflow.errors import AlreadyRunning, GraphChanged, InvalidInput, InvalidValue, UndeclaredEvent
from pgflow.store import definition
from pgflow.worker import held_jobs
from tests.worker.conftest import Work
from tests.worker.db_helpers import one, rows, steps, until_status
from tests.worker.thread_worker import Inside


@step
def first(ctx: Context[Any]) -> Ok:
    return Ok("done", {"version": ctx.version, "workflow": ctx.workflow})


@step
def second(ctx: Context[Any]) -> Ok:
    return Ok("done", {"version": ctx.version})


confirm = WaitForEvent("confirmed").named("confirm")
approve = WaitForEvent("approved").named("approve")


class Careful(Workflow[dict[str, Any]], unique=Unique("careful"), current=1):
    """The newest version is not yet the one that a start takes by itself."""

    class V1(Workflow[dict[str, Any]], version=1):
        initial = confirm
        transitions = {confirm: {"received": first}, first: {"done": Done}}

    class V2(Workflow[dict[str, int]], version=2):
        initial = approve
        transitions = {approve: {"received": first}, first: {"done": second}, second: {"done": Done}}

    versions = {1: V1, 2: V2}

    @classmethod
    def version_for(cls, versions: Mapping[int, type[Workflow[Any]]], options: Mapping[str, Any]) -> int | None:
        if options.get("tenant") == "brave" or options["value"].startswith("brave"):
            return max(versions)
        return None


class Paired(Workflow[dict[str, Any]], unique=Unique("paired", scope="version"), current=2):
    class V1(Workflow[dict[str, Any]], version=1):
        initial = confirm
        transitions = {confirm: {"received": Done}}

    class V2(Workflow[dict[str, Any]], version=2):
        initial = confirm
        transitions = {confirm: {"received": Done}}

    versions = {1: V1, 2: V2}


WORKFLOWS = (Careful, Paired)


def signup(name: str, current: int, *numbers: int, scope: Scope = "workflow") -> type[Workflow[dict[str, Any]]]:
    """Return a versioned workflow as one deployment defines it: version 1 waits, each higher one does not."""

    class Signup(Workflow[dict[str, Any]], unique=Unique("signup", scope), name=name, current=current):
        class V1(Workflow[dict[str, Any]], version=1):
            initial = confirm
            transitions = {confirm: {"received": first}, first: {"done": Done}}

        class V2(Workflow[dict[str, Any]], version=2):
            initial = second
            transitions = {second: {"done": Done}}

        class V3(V2, version=3):
            pass

        versions = {number: kind for number, kind in {1: V1, 2: V2, 3: V3}.items() if number in numbers}

    return Signup


@contextmanager
def opened(dsn: str, *workflows: type[Workflow[Any]]) -> Iterator[Pgflow]:
    app = Pgflow(dsn, workflows=workflows)
    app.register()
    try:
        yield app
    finally:
        app.close()


def stored_versions(conn: Connection) -> list[int]:
    return [version for (version,) in rows(conn, "select version from pgflow.instances order by run")]


def test_a_start_takes_the_named_version_else_that_of_version_for_else_the_current_one(
    app: Pgflow, conn: Connection
) -> None:
    Careful.start("a", version=2, options={"tenant": "timid"})
    Careful.start("b", version=1, options={"tenant": "brave"})
    Careful.start("c", options={"tenant": "brave"})
    Careful.start("brave-d")
    Careful.start("e", options={"tenant": "timid"})
    assert stored_versions(conn) == [2, 1, 2, 2, 1]
    assert rows(conn, "select distinct workflow from pgflow.instances") == [("Careful",)]


def test_plain_sql_takes_the_current_version_and_not_the_highest(app: Pgflow, conn: Connection) -> None:
    conn.execute("select pgflow.start('Careful', 'a')")
    conn.execute("select pgflow.start('Careful', 'b', version => 2)")
    assert stored_versions(conn) == [1, 2]
    read = run(conn, definition.read("pgflow", workflow="Careful", version=None))
    assert read is not None
    assert read.version == 1


def test_many_starts_are_of_one_version(app: Pgflow, conn: Connection) -> None:
    Careful.start_many([("a", {}), ("b", {})], version=2)
    Careful.start_many([("brave-a", {}), ("brave-b", {})])
    assert stored_versions(conn) == [2, 2, 2, 2]
    with pytest.raises(InvalidValue, match="version_for chooses several versions for one call: 1, 2"):
        Careful.start_many([("c", {}), ("brave-c", {})])
    assert Careful.start_many([]) == []


def test_the_input_is_that_of_the_version_which_is_started(app: Pgflow) -> None:
    Careful.start("a", {"x": "text"}, version=1)
    with pytest.raises(InvalidInput, match="Careful: the input does not fit dict"):
        Careful.start("b", {"x": "text"}, version=2)


def test_all_versions_run_each_in_its_own_way(app: Pgflow, work: Work) -> None:
    work()
    Careful.start("a")
    Careful.start("b", version=2)
    Careful.resume("a", "confirmed")
    Careful.resume("b", "approved")
    old, new = until_status(Careful, "a"), until_status(Careful, "b")
    assert (old.version, steps(old)) == (1, ["confirm", "first"])
    assert (new.version, steps(new)) == (2, ["approve", "first", "second"])
    assert new.steps["first"] == {"version": 2, "workflow": "Careful"}


def test_a_versioned_workflow_sees_all_versions_and_a_version_only_its_own(app: Pgflow) -> None:
    Careful.start("a")
    Careful.start("b", version=2)
    assert {each.id for each in Careful.list()} == {"careful::a", "careful::b"}
    assert [each.id for each in Careful.V2.list()] == ["careful::b"]
    assert [Careful.get(value).version for value in "ab"] == [1, 2]
    with pytest.raises(UndeclaredEvent):
        Careful.resume("a", "approved")  # only the other version takes it
    with pytest.raises(UndeclaredEvent):
        Careful.resume("a", "refused")
    assert Careful.resume("a", "confirmed", step=confirm) == "kept"
    Careful.cancel("b")
    assert [each.id for each in Careful.list(status="cancelled")] == ["careful::b"]


def test_one_key_is_active_once_over_all_versions(app: Pgflow) -> None:
    Careful.start("a", version=1)
    with pytest.raises(AlreadyRunning):
        Careful.start("a", version=2)
    with pytest.raises(AlreadyRunning):
        Careful.V2.start("a")


def test_with_scope_version_a_key_is_active_once_in_each_version(app: Pgflow, conn: Connection) -> None:
    old, new = Paired.start("a", version=1), Paired.start("a")
    with pytest.raises(AlreadyRunning, match=f"run {old.run}"):
        Paired.start("a", version=1)
    assert stored_versions(conn) == [1, 2]
    assert Paired.get("a").run == Paired.V2.get("a").run == new.run
    assert Paired.V1.get("a").run == old.run
    assert [each.run for each in Paired.runs("a")] == [new.run, old.run]
    assert [each.run for each in Paired.V1.runs("a")] == [old.run]


def test_each_of_two_versions_of_a_key_is_resumed_cancelled_and_retried_by_its_class(
    app: Pgflow, conn: Connection
) -> None:
    Paired.start("a", version=1)
    Paired.start("a", version=2)
    assert Paired.V1.resume("a", "confirmed") == "kept"
    assert one(conn, "select version from pgflow.signals join pgflow.instances using (run)") == 1
    Paired.V1.cancel("a", reason="old")
    assert (Paired.V1.get("a").status, Paired.get("a").status) == ("cancelled", "running")
    conn.execute("update pgflow.instances set status = 'failed' where version = 1")
    Paired.V1.retry("a")
    assert (Paired.V1.get("a").status, Paired.get("a").status) == ("running", "running")


def test_an_instance_keeps_its_version_when_another_becomes_current(dsn: str, conn: Connection) -> None:
    with opened(dsn, before := signup("Snapshot", 1, 1, 2)):
        before.start("a")
    with opened(dsn, after := signup("Snapshot", 2, 1, 2)) as app, Inside(app):
        after.start("b")
        assert until_status(after, "b").version == 2
        after.resume("a", "confirmed")
        kept = until_status(after, "a")
        assert (kept.version, steps(kept)) == (1, ["confirm", "first"])


def test_workers_of_two_deployments_share_the_work(dsn: str, conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_jobs, "PASS_ON_SECONDS", 0.05)
    before, after = signup("Rolling", 1, 1), signup("Rolling", 2, 1, 2)
    with ExitStack() as stack:
        old, new = stack.enter_context(opened(dsn, before)), stack.enter_context(opened(dsn, after))
        stack.enter_context(Inside(old))
        before.start("a")
        for number in range(10):
            after.start(f"b{number}")
        stack.enter_context(Inside(new))
        assert {until_status(after, f"b{number}").version for number in range(10)} == {2}
        before.resume("a", "confirmed")
        assert until_status(before, "a").version == 1


def current(conn: Connection, workflow: str) -> int:
    found = run(conn, definition.read("pgflow", workflow=workflow, version=None))
    assert found is not None
    return found.version


def test_the_current_version_goes_forward_and_back_as_apps_register(dsn: str, conn: Connection) -> None:
    seen = []
    for deployed in [(1, 1, 2), (2, 1, 2), (1, 1, 2), (1, 1, 2, 3), (3, 1, 2, 3)]:
        with opened(dsn, signup("Moving", *deployed)):
            seen.append(current(conn, "Moving"))
    assert seen == [1, 2, 1, 1, 3]


def test_an_app_that_does_not_know_the_current_version_leaves_it(dsn: str, conn: Connection) -> None:
    for deployed in [(3, 1, 2, 3), (2, 1, 2)]:
        with opened(dsn, signup("Late", *deployed)):
            assert current(conn, "Late") == 3


def test_a_changed_version_is_refused_with_the_next_number(dsn: str, conn: Connection) -> None:
    class Changed(Workflow[dict[str, Any]], unique=Unique("signup"), name="Changed", current=1):
        class V1(Workflow[dict[str, Any]], version=1):
            initial = first
            transitions = {first: {"done": Done}}

        class V2(Workflow[dict[str, Any]], version=2):
            initial = first
            transitions = {first: {"done": Done}}

        versions = {1: V1, 2: V2}

    with opened(dsn, signup("Changed", 1, 1)):
        app = Pgflow(dsn, workflows=[Changed])
        with pytest.raises(GraphChanged, match="Changed version 1 has another graph") as caught:
            app.register()
        app.close()
    assert caught.value.hint is not None
    assert "version=3" in caught.value.hint


NAMES = (f"Scoped{number}" for number in count(1))


@pytest.fixture
def name() -> str:
    """The name of a workflow that no other test registers."""
    return next(NAMES)


def scoped(name: str, key: str, scope: Scope, version: int = 1) -> type[Workflow[dict[str, Any]]]:
    class Scoped(Workflow[dict[str, Any]], unique=Unique(key, scope=scope), name=name, version=version):
        initial = first
        transitions = {first: {"done": Done}}

    return Scoped


@pytest.mark.parametrize(
    ("key", "scope"), [("scoped", "version"), ("scoped", "global"), ("scoped", "none"), ("other", "workflow")]
)
def test_a_changed_unique_key_or_scope_under_one_version_is_refused(
    dsn: str, conn: Connection, name: str, key: str, scope: Scope
) -> None:
    with opened(dsn, before := scoped(name, "scoped", "workflow")):
        before.start("a")
    app = Pgflow(dsn, workflows=[after := scoped(name, key, scope)])
    refusal = re.escape(f"Unique('scoped', scope='workflow'), not Unique({key!r}, scope={scope!r})")
    with pytest.raises(GraphChanged, match=f"{name} version 1 has another unique key or scope.*{refusal}") as caught:
        after.start("a")
    with pytest.raises(GraphChanged):
        asyncio.run(app.aregister())
    app.close()
    assert "version=2" in (caught.value.hint or "")
    stored = "select graph -> 'unique' from pgflow.definitions where workflow = %s"
    assert conn.execute(stored, [name]).fetchall() == [({"key": "scoped", "scope": "workflow"},)]
    assert conn.execute("select count(*) from pgflow.instances where workflow = %s", [name]).fetchall() == [(1,)]


def test_a_change_of_scope_of_a_versioned_workflow_needs_another_name(dsn: str, conn: Connection) -> None:
    class Changed(Workflow[dict[str, Any]], unique=Unique("signup", scope="version"), name="Rescoped", current=1):
        class V1(Workflow[dict[str, Any]], version=1):
            initial = confirm
            transitions = {confirm: {"received": first}, first: {"done": Done}}

        versions = {1: V1}

    with opened(dsn, signup("Rescoped", 1, 1)):
        app = Pgflow(dsn, workflows=[Changed])
        with pytest.raises(GraphChanged) as caught:
            app.register()
        app.close()
    assert (caught.value.hint or "").endswith("give the changed workflow another name.")


@pytest.mark.parametrize("stored", ["graph - 'unique'", "jsonb_set(graph, '{unique}', 'null')"])
def test_a_stored_definition_without_its_unique_key_gets_it_without_an_error(
    dsn: str, conn: Connection, name: str, stored: str
) -> None:
    with opened(dsn, scoped(name, "scoped", "global")):
        pass
    update = f"update pgflow.definitions set graph = {stored} where workflow = %s"  # noqa: S608 -- it stands above
    conn.execute(update.encode(), [name])
    with opened(dsn, again := scoped(name, "scoped", "workflow")):
        assert again.start("b").created
    unique = "select unique_key, unique_scope from pgflow.definitions where workflow = %s"
    assert conn.execute(unique, [name]).fetchall() == [("scoped", "workflow")]


@pytest.mark.parametrize(
    ("before", "after"), [("workflow", "version"), ("version", "workflow"), ("global", "workflow")]
)
def test_a_new_version_with_another_scope_respects_the_wider_of_the_two(
    dsn: str, conn: Connection, name: str, before: Scope, after: Scope
) -> None:
    with opened(dsn, old := scoped(name, "scoped", before)):
        active = old.start("a")
    with opened(dsn, new := scoped(name, "scoped", after, 2)):
        with pytest.raises(AlreadyRunning, match=f"in run {active.run}"):
            new.start("a")
        new.cancel("a")
        assert new.start("a").created


def test_a_plain_workflow_becomes_versioned_and_its_instances_continue(dsn: str, conn: Connection) -> None:
    class Plain(Workflow[dict[str, Any]], unique=Unique("signup"), name="Grown"):
        initial = confirm
        transitions = {confirm: {"received": first}, first: {"done": Done}}

    with opened(dsn, Plain):
        Plain.start("a")
        assert current(conn, "Grown") == 1
    with opened(dsn, after := signup("Grown", 2, 1, 2)) as app, Inside(app):
        assert current(conn, "Grown") == 2
        after.resume("a", "confirmed")
        assert until_status(after, "a").version == 1


def test_code_from_before_there_were_current_versions_can_still_register(dsn: str, conn: Connection) -> None:
    graph = signup("Before", 1, 1).versions[1].graph
    conn.execute(
        "insert into pgflow.definitions (workflow, version, hash, graph) values (%s, 1, %s, %s::text::jsonb)",
        ["Before", graph.digest(), "{}"],
    )
    assert current(conn, "Before") == 1
    with opened(dsn, signup("Before", 1, 1, 2)):
        assert current(conn, "Before") == 1
