"""The pages of the system and of the help."""

from __future__ import annotations

from pgflow.web.rendering.guides import guides
from tests.web.depot.app import Depot


def test_the_doctor_findings_are_shown_with_problems_first(depot: Depot) -> None:
    client = depot.client()
    page = client.get("/api/v1/system").json()
    states = [each["state"] for each in page["findings"]]
    assert states == sorted(states, key=("problem", "note", "completed").index)
    assert {"server", "migrations"} & {each["check"] for each in page["findings"]}
    again = client.get("/api/v1/system").json()
    assert again["checked_at"] == page["checked_at"]  # kept for a minute
    assert "Doctor findings" in client.get("/system").text


def test_every_guide_is_rendered_and_leads_to_the_others(depot: Depot) -> None:
    client = depot.client()
    assert len(guides()) > 20
    for each in guides():
        html = client.get(f"/help/{each.name}")
        assert html.status_code == 200, each.name
        assert each.summary, each.name
        assert "<script" not in html.text.partition("<article")[2]
    assert 'href="/help/calls"' in client.get("/help/tasks").text
    assert client.get("/help/nope").status_code == 404
    assert client.get("/help/..%2f..%2fpyproject").status_code == 404
