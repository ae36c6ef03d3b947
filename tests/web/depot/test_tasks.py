"""The pages of tasks, and what can be done with them."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.web.depot.app import Depot
from tests.web.site import OURS, PARTIAL


@pytest.fixture
def client(depot: Depot) -> TestClient:
    """A browser of a person with a name for the audit."""
    return depot.client()


def read(client: TestClient, number: int | None) -> dict[str, Any]:
    """Return a task as its page has it."""
    found: dict[str, Any] = client.get(f"/api/v1/tasks/{number}").json()
    return found


def act(client: TestClient, path: str, **given: Any) -> dict[str, Any]:
    """Do something, and return what was done."""
    response = client.post(f"/api/v1/tasks/{path}", json=given, headers=OURS)
    assert response.status_code == 200, response.text
    done: dict[str, Any] = response.json()
    return done


def test_the_list_shows_each_task_in_its_state(depot: Depot, client: TestClient) -> None:
    rows = {row["id"]: row for row in client.get("/api/v1/tasks").json()["rows"]}
    states = {key: rows[str(getattr(depot, key).id)]["state"] for key in ("done", "failed", "retrying", "later")}
    assert states == {"done": "completed", "failed": "failed", "retrying": "retrying", "later": "scheduled"}
    failed = rows[str(depot.failed.id)]
    assert failed["error"] == "ValueError: parcel 8 has no <b>address</b>"
    assert failed["args"]["value"] == {"parcel": 8, "password": "•••••• hidden"}
    html = client.get("/tasks").text
    assert "no &lt;b&gt;address" in html
    assert "hunter2" not in html


def test_pages_by_key_hold_each_task_once_in_both_directions(client: TestClient) -> None:
    def walk(query: str, direction: str) -> list[str]:
        found, url = [], f"/api/v1/tasks?limit=2{query}"
        while True:
            page = client.get(url).json()
            found += [row["id"] for row in page["rows"]][:: 1 if direction == "older" else -1]
            if page[direction] is None:
                return found
            url = f"/api/v1/tasks?limit=2&{'before' if direction == 'older' else 'after'}={page[direction]}"

    older = walk("", "older")
    assert older == sorted(set(older), key=int, reverse=True)
    assert walk("&after=0", "newer") == older[::-1]


def test_tabs_count_and_a_filter_counts_what_matches(client: TestClient) -> None:
    page = client.get("/api/v1/tasks").json()
    counts = {tab["state"]: tab["count"] for tab in page["tabs"]}
    for state, many in counts.items():
        if state is not None:
            assert client.get("/api/v1/tasks", params={"q": f"state:{state}"}).json()["matching"] == many, state
    bad = client.get("/tasks", params={"q": "workflow:OrderFlow"})
    assert bad.status_code == 400
    assert "The filter cannot be read" in bad.text


def test_a_task_is_shown_with_its_error_and_without_secrets(depot: Depot, client: TestClient) -> None:
    failed = read(client, depot.failed.id)
    assert (failed["state"], failed["error"]["type"]) == ("failed", "ValueError")
    assert failed["args"]["value"]["password"] == "•••••• hidden"  # noqa: S105 -- what is shown instead
    assert read(client, depot.done.id)["output"]["value"] == {"parcel": 7, "copies": 2}
    assert "starts" in client.get(f"/tasks/{depot.retrying.id}").text
    assert client.get("/tasks/999999").status_code == 404


def test_a_task_is_enqueued_by_the_form_of_its_signature(depot: Depot, client: TestClient) -> None:
    url = "/tasks/enqueue?task=send_label"
    form = client.get(url, headers=PARTIAL).text
    for name in ("args.parcel", "args.copies", "args.service"):
        assert f'name="{name}"' in form
    filled = {"task": "send_label", "args.parcel": "x", "args.copies": "2"}
    refused = client.post(url, data=filled, headers=PARTIAL)
    assert refused.status_code == 422
    assert "is not a whole number" in refused.text
    done = client.post(url, data={**filled, "args.parcel": "11", "delay": "60"}, headers=PARTIAL)
    number = int(done.headers["hx-redirect"].rpartition("/")[2])
    found = read(client, number)
    assert (found["state"], found["args"]["value"]["parcel"]) == ("scheduled", 11)
    act(client, f"{number}/delete")


def test_a_registered_name_is_enqueued_without_its_code(depot: Depot, client: TestClient) -> None:
    given = {"task": "send_label", "args": {"parcel": 12, "copies": 1, "service": "express"}, "delay": 60}
    number = act(client, "enqueue", **given)["details"]["id"]
    act(client, f"{number}/delete")
    for wrong in (
        {"task": "nope"},
        {"task": "send_label", "args": {"parcel": "x"}},
        {"task": "send_label", "args": []},
    ):
        assert client.post("/api/v1/tasks/enqueue", json=wrong, headers=OURS).status_code in (404, 422), wrong


def test_a_task_is_moved_rescheduled_run_now_cancelled_retried_and_deleted(depot: Depot, client: TestClient) -> None:
    number = act(client, "enqueue", task="send_label", args={"parcel": 13}, delay=3600)["details"]["id"]
    act(client, f"{number}/move", queue="trucks", priority=7)
    assert {key: read(client, number)[key] for key in ("queue", "priority")} == {"queue": "trucks", "priority": 7}
    act(client, f"{number}/reschedule", at="2099-01-31T12:00:00Z")
    assert read(client, number)["run_at"] == "2099-01-31T12:00:00Z"
    act(client, f"{number}/run-now")
    assert read(client, number)["state"] == "ready"
    act(client, f"{number}/cancel", reason="no longer needed")
    cancelled = read(client, number)
    assert (cancelled["state"], cancelled["error"]["reason"]) == ("cancelled", "no longer needed")
    act(client, f"{number}/retry")
    assert read(client, number)["state"] == "ready"
    act(client, f"{number}/delete")
    assert client.get(f"/api/v1/tasks/{number}").status_code == 404


def test_what_cannot_be_done_is_refused(depot: Depot, client: TestClient) -> None:
    done, later = depot.done.id, depot.later.id
    for path, given, status in (
        (f"{done}/cancel", {}, 409),
        (f"{done}/move", {"queue": "mail"}, 409),
        (f"{later}/move", {"queue": "no such/queue"}, 422),
        (f"{later}/move", {"priority": 40_000}, 422),
        (f"{later}/reschedule", {"at": "2099-01-31T12:00:00"}, 422),
        ("999999/retry", {}, 404),
    ):
        response = client.post(f"/api/v1/tasks/{path}", json=given, headers=OURS)
        assert response.status_code == status, (path, response.text)


def test_a_bulk_retry_of_selected_tasks_previews_and_reports(depot: Depot, client: TestClient) -> None:
    url = f"/tasks/retry?q=id:{depot.failed.id},{depot.done.id}"
    assert "Will be retried: 1. Skipped: 1 completed." in client.get(url, headers=PARTIAL).text
    done = client.post(f"/api/v1{url}", json={}, headers=OURS).json()
    assert (done["outcome"], done["details"]["changed"], done["details"]["skipped"]) == ("partial", 1, 1)
    assert read(client, depot.failed.id)["state"] == "ready"
    depot.drain()
    assert read(client, depot.failed.id)["state"] == "failed"
