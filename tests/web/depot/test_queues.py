"""The pages of queues, and what can be done with one."""

from __future__ import annotations

from starlette.testclient import TestClient

from tests.web.depot.app import Depot
from tests.web.site import OURS, PARTIAL


def row(client: TestClient, name: str) -> dict[str, object]:
    """Return a queue as the page has it."""
    rows = client.get("/api/v1/queues").json()["rows"]
    return next(each for each in rows if each["name"] == name)


def test_a_queue_is_shown_with_its_limits_and_what_waits_in_it(depot: Depot) -> None:
    client = depot.client()
    mail = row(client, "mail")
    assert mail["limits"] == {
        "concurrency": 5,
        "key_concurrency": None,
        "rate": 100 / 60,
        "burst": 20,
        "key_rate": None,
        "key_burst": 1,
    }
    assert mail["scheduled"] == 1
    assert row(client, "hooks")["retrying"] == 1
    html = client.get("/queues?queue=mail").text
    assert "100 per minute, burst 20" in html
    assert "None is alive." in html


def test_an_unknown_queue_names_those_in_use(depot: Depot) -> None:
    answer = depot.client().get("/api/v1/queues?queue=nope")
    assert answer.status_code == 404
    assert "mail" in answer.json()["problem"]["hint"]


def test_a_queue_is_paused_scaled_and_resumed_by_a_person(depot: Depot) -> None:
    client = depot.client()
    assert "Pause trucks?" in client.get("/queues/trucks/pause", headers=PARTIAL).text
    assert client.post("/queues/trucks/pause", headers=PARTIAL).status_code == 200
    assert (row(client, "trucks")["state"], row(client, "trucks")["paused_by"]) == ("paused", "ada")
    assert client.post("/api/v1/queues/trucks/scale", json={"per_worker": 3}, headers=OURS).status_code == 200
    assert row(client, "trucks")["worker_concurrency"] == 3
    resumed = client.post("/api/v1/queues/trucks/resume", json={}, headers=OURS)
    assert resumed.json()["details"] == {"was_paused": True}
    assert row(client, "trucks")["state"] == "open"


def test_a_drain_reports_what_still_runs(depot: Depot) -> None:
    client = depot.client()
    done = client.post("/api/v1/queues/trucks/drain", json={"seconds": 0}, headers=OURS).json()
    assert (done["outcome"], done["details"]) == ("done", {"running": 0})
    number = depot.sending()
    busy = client.post("/api/v1/queues/mail/drain", json={"seconds": 0}, headers=OURS).json()
    assert (busy["outcome"], busy["details"]) == ("partial", {"running": 1})
    assert "1 job still runs" in busy["message"]
    depot.sent(number)
    client.post("/api/v1/queues/mail/resume", json={}, headers=OURS)


def test_bad_values_of_a_scale_change_nothing(depot: Depot) -> None:
    client = depot.client()
    before = depot.audit()
    assert client.post("/api/v1/queues/mail/scale", json={"per_worker": 0}, headers=OURS).status_code == 422
    assert client.post("/api/v1/queues/nope/pause", json={}, headers=OURS).status_code == 404
    assert client.post("/api/v1/queues/mail/pause", json={"sudo": True}, headers=OURS).status_code == 422
    assert depot.audit() == before
