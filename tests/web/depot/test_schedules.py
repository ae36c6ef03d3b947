"""The page of schedules, and what can be done with one."""

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


def rows(client: TestClient) -> dict[str, dict[str, Any]]:
    """Return the schedules by their names."""
    return {row["name"]: row for row in client.get("/api/v1/schedules").json()["rows"]}


def act(client: TestClient, path: str, **given: Any) -> dict[str, Any]:
    """Do something, and return what was done."""
    response = client.post(f"/api/v1/schedules/{path}", json=given, headers=OURS)
    assert response.status_code == 200, response.text
    done: dict[str, Any] = response.json()
    return done


def test_a_schedule_shows_when_in_words_and_instants(client: TestClient) -> None:
    found = rows(client)
    weekday, labels = found["weekday-parcel"], found["labels"]
    assert weekday["words"] == "At 09:00 on Monday through Friday"
    assert (weekday["expression"], weekday["tz"]) == ("0 9 * * mon-fri", "Europe/Berlin")
    assert len(weekday["next"]) == 3
    assert labels["words"] == "Every 5 min"
    assert (labels["day"], labels["many"]) == (None, 288)
    html = client.get("/schedules").text
    assert "At 09:00 on Monday through Friday" in html
    assert "288 runs" in html


def test_a_schedule_is_paused_and_resumed_by_a_person(client: TestClient) -> None:
    assert "Pause labels?" in client.get("/schedules/labels/pause", headers=PARTIAL).text
    act(client, "labels/pause")
    assert {key: rows(client)["labels"][key] for key in ("state", "paused_by")} == {
        "state": "paused",
        "paused_by": "ada",
    }
    assert "none while paused" in client.get("/schedules").text
    act(client, "labels/resume")
    assert rows(client)["labels"]["state"] != "paused"


def test_a_run_now_and_a_backfill_start_the_target(depot: Depot, client: TestClient) -> None:
    number = act(client, "labels/run")["details"]["run"]
    assert client.get(f"/api/v1/tasks/{number}").json()["args"]["value"]["parcel"] == 1
    span = {"start": "2030-01-31T12:00:00Z", "end": "2030-01-31T12:15:00Z"}
    assert act(client, "labels/backfill", **span)["details"] == {"started": 3, "skipped": 0}
    depot.drain()
    for wrong in (
        {**span, "end": span["start"]},
        {**span, "start": "1990-01-01T00:00:00Z"},
        {"start": "x", "end": "y"},
    ):
        assert client.post("/api/v1/schedules/labels/backfill", json=wrong, headers=OURS).status_code == 422, wrong


def test_a_schedule_is_added_by_the_form_and_removed(client: TestClient) -> None:
    filled = {"name": "eu/nightly", "target": "ParcelFlow", "cron": "0 2 * * *", "overlap": "queue", "catch_up": "none"}
    wrong = client.post("/schedules/add", data={**filled, "cron": "61 2 * * *"}, headers=PARTIAL)
    assert wrong.status_code == 422
    assert "61" in wrong.text
    both = client.post("/schedules/add", data={**filled, "every": "60"}, headers=PARTIAL)
    assert "either a cron expression or an interval" in both.text
    filled["args"] = '{"weight": 3}'
    assert client.post("/schedules/add", data=filled, headers=PARTIAL).status_code == 200
    assert rows(client)["eu/nightly"]["overlap"] == "queue"
    act(client, "eu%2Fnightly/remove")
    assert "eu/nightly" not in rows(client)


def test_what_cannot_be_done_is_refused(client: TestClient) -> None:
    assert client.post("/api/v1/schedules/nope/pause", json={}, headers=OURS).status_code == 404
    assert client.get("/schedules/nope/run").status_code == 404
    refused = client.post("/api/v1/schedules/labels/remove", json={}, headers=OURS)
    assert refused.status_code == 409  # its app declares it
    added = {"name": "x", "target": "NoSuchFlow", "cron": "@daily"}
    assert client.post("/api/v1/schedules/add", json=added, headers=OURS).status_code == 404
