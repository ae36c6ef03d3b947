"""`pgflow bulk`, `pgflow list --filter`, `pgflow prune` and `pgflow audit list`, on a database without a worker."""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable

import pytest

from pgflow.database.connect import connect
from tests.acceptance.deployment import APP, ORDER, Deployment
from tests.conftest import Server


@pytest.fixture
def orders(server: Server, migrated_database: Callable[[Server], str]) -> Deployment:
    """Three orders, of which one has failed."""
    deployment = Deployment.create(server, migrated_database)
    for value in ("a", "b", "c"):
        deployment.ok("start", "OrderFlow", value, "--input", ORDER, "--tag", value, PGFLOW_APP=APP)
    with connect(deployment.dsn, "test") as conn:
        conn.execute(
            """update pgflow.instances set status = 'failed', finished_at = now() - interval '2 days',
                error = '{"step": "ship", "reason": "timed out", "attempt": 2}' where id = 'orderid::c'"""
        )
        conn.execute("delete from pgflow.jobs j using pgflow.instances i where i.run = j.run and i.status = 'failed'")
    return deployment


def test_an_operation_is_a_dry_run_unless_it_is_confirmed(orders: Deployment) -> None:
    done = orders.pgflow("bulk", "retry", "--filter", "workflow:OrderFlow")
    assert (done.returncode, done.stdout) == (0, "3 match: 1 failed, 2 running\n")
    assert done.stderr == "retry would apply to 1 of them; run it with --yes\n"
    done = orders.pgflow("bulk", "retry", "--filter", "workflow:OrderFlow", "--yes")
    assert (done.returncode, done.stdout) == (0, "retrying 1 of 3\n")
    assert done.stderr.startswith("skipped 2: it is running (orderid::a, orderid::b)\noperation ")
    listed = orders.ok("audit", "list", "--action", "bulk")
    assert "bulk retry" in listed
    assert "filter=workflow:OrderFlow" in listed
    assert f"({getpass.getuser()})" in listed


def test_each_action_has_its_options(orders: Deployment) -> None:
    def changed(*arguments: str) -> int:
        return int(json.loads(orders.ok("bulk", *arguments, "--yes", "--json"))["changed"])

    assert changed("move", "--filter", "tag:a", "--queue", "slow") == 1
    assert changed("reprioritise", "--filter", "queue:slow", "--priority", "-3") == 1
    assert changed("reschedule", "--filter", "priority:-3", "--in", "1h") == 1
    assert changed("reschedule", "--filter", "priority:-3", "--at", "2030-01-31T12:00:00Z") == 1
    assert changed("cancel", "--filter", "tag:a,b", "--reason", "why") == 2
    assert changed("delete", "--filter", "state:cancelled") == 2
    record = json.loads(orders.ok("audit", "list", "--json", "--limit", "2"))["audit"]
    assert [each["action"] for each in record] == ["bulk delete", "bulk cancel"]
    again = json.loads(orders.ok("bulk", "resume", record[0]["id"], "--json"))
    assert (again["action"], again["changed"]) == ("delete", 2)
    assert "Pass either --at or --in" in orders.pgflow("bulk", "reschedule", "--filter", "tag:a").stderr


def test_list_takes_a_filter_and_refuses_an_unknown_key(orders: Deployment) -> None:
    assert orders.ok("list", "--filter", 'state:failed step:ship error:"timed out"', "--quiet") == "orderid::c\n"
    assert orders.ok("list", "--filter", "-tag:a,b input.item_count:3", "--quiet") == "orderid::c\n"
    line = orders.refused(6, "list", "--filter", "tag:a statee:failed")
    assert "column 7: there is no key 'statee'. Did you mean state" in line
    assert "queue, step, worker" in line
    assert "--filter replaces" in orders.pgflow("list", "OrderFlow", "--filter", "tag:a").stderr


def test_a_cancel_names_the_system_user_in_the_audit(orders: Deployment) -> None:
    orders.ok("cancel", "OrderFlow", "a", "--reason", "test")
    (entry,) = json.loads(orders.ok("audit", "list", "--json"))["audit"]
    assert entry["who"].endswith(f" ({getpass.getuser()})")
    assert (entry["action"], entry["details"]["id"]) == ("cancel", "orderid::a")
    assert json.loads(orders.ok("audit", "--json"))["audit"] == [entry]
    assert orders.ok("audit").startswith("ID ")
    assert orders.pgflow("audit", "list", "--action", "bulk").stderr == "no actions\n"


def test_prune_deletes_what_ended_long_ago(orders: Deployment) -> None:
    assert orders.ok("prune", "--older-than", "3d") == "deleted 0\n"
    assert orders.ok("prune", "--older-than", "1d") == "deleted 1\n"
