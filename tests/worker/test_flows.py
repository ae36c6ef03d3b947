"""Branches that meet again, routes and fan-outs, on a worker and a real database."""

from __future__ import annotations

from typing import Any

import pytest

from pgflow import Context, Done, Ok, Pgflow, Step, Unique, Workflow, route, step
from pgflow.database.connect import Connection
from tests.worker.conftest import Work
from tests.worker.db_helpers import leftovers, steps, until_all_ended, until_status

Input = dict[str, Any]


@step(events=("x", "y"))
def choose(ctx: Context[Input]) -> Ok:
    return Ok(ctx.initial["event"])


@step
def by_x(ctx: Context[Input]) -> Ok:
    return Ok("done", "x")


@step
async def by_y(ctx: Context[Input]) -> Ok:
    return Ok("done", "y")


@step
def meet(ctx: Context[Input]) -> Ok:
    return Ok("done", sorted(set(ctx.steps) - {"choose", "triage", "fork"}))


class Exclusive(Workflow[Input], unique=Unique("exclusive")):
    """One of two branches is taken, and both lead to the same step."""

    initial = choose
    transitions = {choose: {"x": by_x, "y": by_y}, by_x: {"done": meet}, by_y: {"done": meet}, meet: {"done": Done}}


@step
def triage(ctx: Context[Input]) -> Ok:
    return Ok("done", {"wanted": ctx.initial["wanted"]})


def wanted(ctx: Context[Input]) -> list[Step]:
    return [target for target in (by_x, by_y) if target.key in ctx.steps["triage"]["wanted"]]


class Routed(Workflow[Input], unique=Unique("routed")):
    """A route that chooses one of two branches, or both."""

    initial = triage
    transitions = {
        triage: {"done": route(wanted, by_x, by_y)},
        by_x: {"done": meet},
        by_y: {"done": meet},
        meet: {"done": Done},
    }


@step
def fork(ctx: Context[Input]) -> Ok:
    return Ok("done")


@step(events=("on", "off"))
async def side(ctx: Context[Input]) -> Ok:
    return Ok(ctx.initial["event"], "side")


class Leaving(Workflow[Input], unique=Unique("leaving")):
    """Two branches run side by side, and one of them may leave before the join."""

    initial = fork
    transitions = {
        fork: {"done": [by_x, side]},
        by_x: {"done": meet},
        side: {"on": meet, "off": Done},
        meet: {"done": Done},
    }


WORKFLOWS = (Exclusive, Routed, Leaving)


@pytest.mark.parametrize("event", ["x", "y"])
def test_exclusive_branches_that_meet_again_run_their_join(
    app: Pgflow, conn: Connection, work: Work, event: str
) -> None:
    work()
    Exclusive.start("v", {"event": event})
    done = until_status(Exclusive, "v")
    assert (done.status, steps(done)) == ("completed", ["choose", f"by_{event}", "meet"])
    assert done.steps["meet"] == [f"by_{event}"]
    assert leftovers(conn) == {}


@pytest.mark.parametrize("chosen", [["by_x"], ["by_y"], ["by_x", "by_y"]])
def test_a_route_runs_what_it_chose_and_the_join_once(
    app: Pgflow, conn: Connection, work: Work, chosen: list[str]
) -> None:
    work()
    Routed.start("v", {"wanted": chosen})
    done = until_status(Routed, "v")
    assert (done.status, sorted(steps(done))) == ("completed", [*chosen, "meet", "triage"])
    assert done.steps["meet"] == chosen
    assert leftovers(conn) == {}


def test_a_route_that_chooses_what_it_did_not_declare_fails_its_instance(
    app: Pgflow, conn: Connection, work: Work
) -> None:
    work()
    Routed.start("v", {"wanted": []})
    failed = until_status(Routed, "v")
    assert failed.status == "failed"
    assert failed.error is not None
    assert (failed.error["step"], failed.error["type"], failed.error["attempt"]) == ("triage", "RouteError", 1)
    assert leftovers(conn) == {}


@pytest.mark.parametrize("event", ["on", "off"])
def test_a_branch_that_leaves_by_another_event_does_not_stop_the_join(
    app: Pgflow, conn: Connection, work: Work, event: str
) -> None:
    work()
    Leaving.start("v", {"event": event})
    done = until_status(Leaving, "v")
    assert (done.status, sorted(steps(done))) == ("completed", ["by_x", "fork", "meet", "side"])
    assert leftovers(conn) == {}


def test_many_joins_at_once_on_two_workers_each_run_once(app: Pgflow, conn: Connection, work: Work) -> None:
    Leaving.start_many([(f"v{number}", {"event": ("on", "off")[number % 2]}) for number in range(300)])
    work({"default": 5})
    work({"default": 5})
    assert until_all_ended(conn) == {"completed": 300}
    assert leftovers(conn) == {}
    counted = conn.execute("select step, count(*) from pgflow.step_results group by step").fetchall()
    assert dict(counted) == dict.fromkeys(["fork", "by_x", "side", "meet"], 300)
