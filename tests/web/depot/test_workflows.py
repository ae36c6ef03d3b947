"""The page of workflows, and the form that starts an instance."""

from __future__ import annotations

from tests.web.depot.app import Depot
from tests.web.site import OURS, PARTIAL


def test_a_workflow_is_shown_with_its_graph_and_where_its_instances_are(depot: Depot) -> None:
    client = depot.client()
    page = client.get("/api/v1/workflows").json()
    row = next(each for each in page["rows"] if each["name"] == "ParcelFlow")
    assert {key: row[key] for key in ("versions", "waiting", "failed", "is_cut", "is_in_app")} == {
        "versions": [1],
        "waiting": 1,
        "failed": 0,
        "is_cut": False,
        "is_in_app": True,
    }
    assert row["completed"] >= 1
    graph = page["graph"]
    assert {each["key"]: each["instances"] for each in graph["nodes"]}["shelf"] == 1
    labels = {(each["source"], each["target"]): each["label"] for each in graph["edges"]}
    assert labels["weigh", "shelf"] == "light"
    assert labels["load", "done"] == ""  # its only event
    html = client.get("/workflows?workflow=ParcelFlow").text
    assert "1 instance" in html
    assert "step%3Ashelf" in html
    assert client.get("/workflows?workflow=ParcelFlow&version=9").status_code == 404


def test_an_instance_is_started_by_the_form_of_its_input(depot: Depot) -> None:
    client = depot.client()
    form = client.get("/workflows/start?workflow=ParcelFlow", headers=PARTIAL).text
    for name in ("value", "input.weight", "input.country", "input.note"):
        assert f'name="{name}"' in form
    filled = {"workflow": "ParcelFlow", "value": "form-1", "input.weight": "71"}
    refused = client.post("/workflows/start", data=filled, headers=PARTIAL)
    assert refused.status_code == 422
    assert "less than or equal to 70" in refused.text
    done = client.post("/workflows/start", data={**filled, "input.weight": "40"}, headers=PARTIAL)
    run = done.headers["hx-redirect"].rpartition("/")[2]
    assert client.get(f"/api/v1/instances/{run}").json()["id"] == "parcel::form-1"
    depot.drain()


def test_a_start_is_refused_for_what_the_app_does_not_have(depot: Depot) -> None:
    client = depot.client()
    for given, status in (
        ({"workflow": "Nope", "value": "1"}, 404),
        ({"workflow": "ParcelFlow", "value": "p-1", "input": {"weight": 2}}, 409),  # it is active
        ({"workflow": "ParcelFlow", "value": "p-9", "input": {"weight": 0}}, 422),
        ({"workflow": "ParcelFlow"}, 422),
    ):
        assert client.post("/api/v1/workflows/start", json=given, headers=OURS).status_code == status, given
