"""Each action does what its button has, names the person in the audit, and reports what is wrong at the field."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from pgflow.web import ALL
from tests.web.shop import Order, OrderFlow, TinyFlow
from tests.web.site import OURS, PARTIAL, Site


@pytest.fixture
def order(site: Site, request: pytest.FixtureRequest) -> int:
    """A new order that waits for everything at once; its value is the name of the test."""
    return site.start_order(request.node.name)


@pytest.fixture
def ada(site: Site) -> TestClient:
    """A browser of a user with a name for the audit."""
    return site.client(authorize=lambda request: ALL.named("ada"))


def state(client: TestClient, run: int, step: str) -> str:
    """Return the state of a step."""
    steps = client.get(f"/api/v1/instances/{run}").json()["steps"]
    return str(next(each["state"] for each in steps if each["key"] == step))


def value_of(order: int, site: Site) -> str:
    """Return the value of an order."""
    return str(next(each.id.partition("::")[2] for each in site.app.list(OrderFlow, limit=1000) if each.run == order))


def test_a_signal_is_validated_at_the_field_and_then_delivered(site: Site, ada: TestClient, order: int) -> None:
    url = f"/instances/{order}/signal?event=arrived&step=await_courier"
    form = ada.get(url, headers=PARTIAL).text
    for name in ("payload.courier", "payload.parcels", "payload.damaged", "payload.service"):
        assert f'name="{name}"' in form
    assert 'min="1"' in form
    filled = {"event": "arrived", "step": "await_courier", "payload.courier": "DHL", "payload.parcels": "0"}
    refused = ada.post(url, data=filled, headers=PARTIAL)
    assert refused.status_code == 422
    assert "greater than or equal to 1" in refused.text
    assert 'value="DHL"' in refused.text  # as it was filled
    assert state(ada, order, "await_courier") == "waiting"
    done = ada.post(url, data={**filled, "payload.parcels": "2", "payload.damaged": "true"}, headers=PARTIAL)
    assert done.status_code == 200
    assert done.headers["hx-trigger"] == "pgflow:done"
    assert "The signal arrived was delivered." in done.text
    site.drain()
    output = {"courier": "DHL", "parcels": 2, "damaged": True}
    assert site.get(value_of(order, site)).steps["await_courier"] == output
    assert site.audit()[-1][0].endswith("(ada)")
    assert site.audit()[-1][1] == "signal"


def test_a_payload_can_be_written_as_json(site: Site, ada: TestClient, order: int) -> None:
    url = f"/instances/{order}/signal?event=arrived"
    data = {"event": "arrived", "payload_json": '{"courier": "UPS", "parcels": 1}'}
    bad = ada.post(url, data={**data, "payload_json": "{"}, headers=PARTIAL)
    assert bad.status_code == 422
    assert "It is not JSON" in bad.text
    assert ada.post(url, data={**data, "payload.damaged": ""}, headers=PARTIAL).status_code == 200
    kept = ada.post(f"/api/v1/instances/{order}/signal", json={"event": "lost", "payload": None}, headers=OURS)
    assert kept.status_code == 422  # the step declares its type


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"event": "arrived", "isAdmin": "1"}, "no field &#39;isAdmin&#39;"),
        ({"event": "nope", "payload": "{}"}, "takes no signal"),
    ],
)
def test_a_tampered_form_does_nothing(ada: TestClient, site: Site, data: dict[str, str], message: str) -> None:
    before = site.audit()
    response = ada.post(f"/instances/{site.order}/signal?event=nope", data=data, headers=PARTIAL)
    assert response.status_code == 422
    assert message in response.text
    assert site.audit() == before


def test_a_held_step_is_retried_completed_or_failed(site: Site, ada: TestClient, order: int) -> None:
    steps = f"/instances/{order}/steps/inform_partner"
    assert ada.post(f"{steps}/retry", data={}, headers=PARTIAL).status_code == 200
    assert state(ada, order, "inform_partner") == "ready"
    site.drain()
    assert state(ada, order, "inform_partner") == "held"
    assert 'option value="informed"' in ada.get(f"{steps}/complete", headers=PARTIAL).text
    done = ada.post(f"{steps}/complete", data={"event": "informed", "output": '{"by": "hand"}'}, headers=PARTIAL)
    assert done.status_code == 200
    site.drain()
    assert state(ada, order, "inform_partner") == "completed"
    again = ada.post(f"{steps}/fail", data={"reason": "no"}, headers=PARTIAL)
    assert again.status_code == 409
    assert "does not wait for an operator" in again.text
    other = site.start_order("to-fail")
    assert (
        ada.post(f"/instances/{other}/steps/inform_partner/fail", data={"reason": "no"}, headers=PARTIAL).status_code
        == 200
    )
    assert site.get("to-fail").status == "failed"
    assert [action for _, action in site.audit()][-3:] == ["retry step", "complete step", "fail step"]


def test_a_timer_and_a_back_off_end_now(site: Site, ada: TestClient, order: int) -> None:
    for step in ("cool_off", "update_crm"):
        assert ada.post(f"/instances/{order}/steps/{step}/run-now", data={}, headers=PARTIAL).status_code == 200
    site.drain()
    assert state(ada, order, "cool_off") == "completed"
    why = ada.get(f"/api/v1/instances/{order}").json()["why"]
    assert "attempt 3 of 9" in next(each["message"] for each in why if each["step"] == "update_crm")
    refused = ada.post(f"/api/v1/instances/{order}/steps/await_courier/run-now", headers=OURS)
    assert refused.status_code == 409
    assert "does not wait for a time" in refused.json()["problem"]["message"]


def test_an_instance_is_cancelled_with_a_reason_and_only_once(site: Site, ada: TestClient, order: int) -> None:
    url = f"/instances/{order}/cancel"
    assert "This cannot be undone." in ada.get(url, headers=PARTIAL).text
    assert ada.post(url, data={"reason": "ordered twice"}, headers=PARTIAL).status_code == 200
    assert "Cancelled: ordered twice" in ada.get(f"/instances/{order}").text
    assert ada.post(url, data={}, headers=PARTIAL).status_code == 409
    assert [action for _, action in site.audit()].count("cancel") == 1


def test_a_bulk_action_previews_confirms_and_reports_what_it_skipped(site: Site, ada: TestClient) -> None:
    runs = [
        site.app.start(TinyFlow, f"bulk-{n}", Order(item_count=1, country="XX"), tags=["bulk"]).run for n in range(3)
    ]
    site.drain()
    waiting = site.app.start(TinyFlow, "bulk-ok", Order(item_count=1), tags=["bulk"]).run
    site.drain()
    q = f"run:{','.join(map(str, [*runs, waiting]))}"
    preview = ada.get("/instances/retry", params={"q": q}, headers=PARTIAL).text
    assert "Retry 3 instances?" in preview
    assert "1 waiting" in preview
    done = ada.post("/api/v1/instances/retry", params={"q": q}, json={}, headers=OURS).json()
    assert (done["outcome"], done["more"]) == ("partial", None)
    assert (done["details"]["changed"], done["details"]["skipped"]) == (3, 1)
    assert done["message"].startswith("3 instances were retried, 1 skipped (tiny::bulk-ok: it is waiting)")
    assert site.audit()[-1][1] == "bulk retry"
    site.drain()
    deleted = ada.post("/instances/delete", params={"q": "tag:bulk state:failed"}, data={}, headers=PARTIAL)
    assert "3 instances were deleted." in deleted.text


def test_a_bulk_action_of_many_is_confirmed_by_their_number(
    site: Site, ada: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pgflow.web.actions import bulk

    monkeypatch.setattr(bulk, "TYPED_ABOVE", 1)
    monkeypatch.setattr(bulk, "BATCH", 1)
    monkeypatch.setattr(bulk, "TURN_SECONDS", 0.0)
    for number in range(2):
        site.app.start(TinyFlow, f"many-{number}", Order(item_count=1), tags=["many"])
    site.drain()
    url, query = "/instances/cancel", {"q": "tag:many"}
    assert "Type 2 to confirm" in ada.get(url, params=query, headers=PARTIAL).text
    assert ada.post(url, params=query, data={"expected": "1"}, headers=PARTIAL).status_code == 422
    turn = ada.post(url, params=query, data={"expected": "2"}, headers=PARTIAL)
    turns = 1
    while 'hx-trigger="submit, load' in turn.text:  # progress, a batch a turn
        more = turn.text.partition('hx-post="')[2].partition('"')[0]
        turn = ada.post(more, data={}, headers=PARTIAL)
        turns += 1
    assert turns > 1
    assert "2 instances were cancelled." in turn.text
    operation = int(more.partition("?")[0].rpartition("/")[2])
    assert ada.post(f"/instances/delete/{operation}", data={}, headers=PARTIAL).status_code == 404


def test_an_empty_filter_changes_nothing(ada: TestClient) -> None:
    assert ada.post("/api/v1/instances/delete", params={"q": " "}, json={}, headers=OURS).status_code == 422
    assert ada.post("/api/v1/instances/delete", json={}, headers=OURS).status_code == 422
    assert ada.post("/api/v1/instances/delete", params={"q": "stat:x"}, json={}, headers=OURS).status_code == 422


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{", "application/json", 422),
        (b"[]", "application/json", 422),
        (b'{"reason": 7}', "application/json", 422),
        (b"x" * 3_000_000, "application/json", 422),
        (b"reason=x", "application/x-www-form-urlencoded", 422),
        (b"[" * 100_000, "application/json", 422),
    ],
)
def test_a_bad_body_does_nothing(site: Site, ada: TestClient, content: bytes, kind: str, status: int) -> None:
    headers = {**OURS, "content-type": kind}
    response = ada.post(f"/api/v1/instances/{site.order}/cancel", content=content, headers=headers)
    assert response.status_code == status
    assert site.get().status != "cancelled"
