"""The pages of limits, workers and the audit, and what can be done with limits."""

from __future__ import annotations

from typing import Any

from pgflow.database.connect import connect
from tests.web.depot.app import Depot
from tests.web.site import OURS, PARTIAL


def limits(depot: Depot) -> dict[tuple[str, str | None], dict[str, Any]]:
    """Return the limits by queue and key."""
    rows = depot.client().get("/api/v1/limits").json()["rows"]
    return {(row["queue"], row["key"]): row for row in rows}


def test_limits_are_set_by_the_form_and_cleared(depot: Depot) -> None:
    client = depot.client()
    assert 'value="5"' in client.get("/limits/set?queue=mail", headers=PARTIAL).text  # the present one
    filled = {"queue": "trucks", "concurrency": "3", "rate": "90", "per": "60", "burst": "4"}
    assert client.post("/limits/set", data=filled, headers=PARTIAL).status_code == 200
    found = limits(depot)["trucks", None]["limits"]
    assert (found["concurrency"], found["rate"], found["burst"]) == (3, 1.5, 4)
    assert "90 per minute" in client.get("/limits").text
    of_key = {"queue": "trucks", "key": "tenant/7", "concurrency": 1, "weight": 2}
    assert client.post("/api/v1/limits/set", json=of_key, headers=OURS).status_code == 200
    assert limits(depot)["trucks", "tenant/7"]["weight"] == 2
    cleared = client.post("/api/v1/limits/clear?queue=trucks", json={}, headers=OURS)
    assert cleared.json()["details"] == {"cleared": True}
    assert {queue for queue, _ in limits(depot)} == {"mail"}


def test_limits_that_make_no_sense_are_refused(depot: Depot) -> None:
    client, before = depot.client(), limits(depot)
    for given, status in (
        ({"queue": "mail"}, 422),
        ({"queue": "mail", "concurrency": 0}, 422),
        ({"queue": "mail", "key": "a", "rate": 3}, 422),
        ({"queue": "mail", "weight": 3}, 422),
        ({"queue": "nope", "concurrency": 3}, 404),
    ):
        response = client.post("/api/v1/limits/set", json=given, headers=OURS)
        assert response.status_code == status, (given, response.text)
    assert limits(depot) == before


def test_workers_are_alive_lost_or_gone(depot: Depot) -> None:
    with connect(depot.dsn, "test") as conn:
        conn.execute(
            "insert into pgflow.workers (node, pid, queues, version, lease_expires_at, lease) values"
            " ('alive', 1, '{mail}', '1.0.0', now() + interval '1 hour', '1 hour'),"
            " ('gone', 2, '{mail}', '0.9.0', now() - interval '1 hour', '30 s')"
        )
    page = depot.client().get("/api/v1/workers").json()
    assert {row["node"]: row["state"] for row in page["rows"] if row["node"] in ("alive", "gone")} == {
        "alive": "alive",
        "gone": "gone",
    }
    assert page["versions"] == {"1.0.0": 1}
    assert "alive:1" in depot.client().get("/workers").text
    with connect(depot.dsn, "test") as conn:
        conn.execute("delete from pgflow.workers where node in ('alive', 'gone')")


def test_the_audit_shows_who_did_what_and_is_filtered(depot: Depot) -> None:
    client = depot.client()
    run = client.post(
        "/api/v1/workflows/start",
        json={"workflow": "ParcelFlow", "value": "audited", "input": {"weight": 1}},
        headers=OURS,
    ).json()["details"]["run"]
    client.post(f"/api/v1/instances/{run}/cancel", json={"reason": "<b>wrong</b>"}, headers=OURS)
    row = client.get("/api/v1/audit?action=cancel&who=ada").json()["rows"][0]
    assert (row["person"], row["action"], row["run"]) == ("ada", "cancel", run)
    html = client.get("/audit?who=ada").text
    assert "&lt;b&gt;wrong" in html
    assert client.get("/api/v1/audit?who=nobody").json()["rows"] == []
    assert client.get("/audit?limit=0").status_code == 422
