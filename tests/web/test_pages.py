"""What the pages show, that the API has the same, and that bad requests are answered with what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from psycopg.conninfo import make_conninfo
from starlette.testclient import TestClient

from pgflow.database.connect import connect
from pgflow.web import dashboard
from pgflow.web.table import ACTIONS, PAGES
from tests.conftest import Server
from tests.web.shop import shop
from tests.web.site import OURS, Site, example_path, parsed


def test_the_pages_of_a_list_hold_each_instance_once_in_both_directions(site: Site, client: TestClient) -> None:
    def walk(query: str, direction: str) -> list[str]:
        found, url = [], f"/api/v1/instances?limit=2{query}"
        while True:
            page = client.get(url).json()
            found += [row["run"] for row in page["rows"]][:: 1 if direction == "older" else -1]
            if page[direction] is None:
                return found
            url = f"/api/v1/instances?limit=2&{'before' if direction == 'older' else 'after'}={page[direction]}"

    older = walk("", "older")
    assert older == sorted(older, key=int, reverse=True)
    assert len(older) == len(set(older)) >= 7
    assert walk("&after=0", "newer") == older[::-1]


def test_a_filter_selects_and_its_chips_take_terms_away(site: Site, client: TestClient) -> None:
    page = client.get("/api/v1/instances", params={"q": 'state:failed error:"unknown country"'}).json()
    assert {row["state"] for row in page["rows"]} == {"failed"}
    assert page["matching"] == len(page["rows"]) == 3
    assert [chip["without"] for chip in page["chips"]] == ['error:"unknown country"', "state:failed"]
    html = client.get("/instances", params={"q": "state:failed"})
    assert "look_up: ValueError: unknown country" in html.text


@pytest.mark.parametrize("query", ["statee:failed", "state:nope", 'error:"open', "just-a-word"])
def test_an_invalid_filter_lists_nothing_and_offers_no_bulk_action(client: TestClient, query: str) -> None:
    html = client.get("/instances", params={"q": query})
    assert html.status_code == 400
    assert "column" in html.text
    assert "data-bulk" not in html.text
    answer = client.get("/api/v1/instances", params={"q": query})
    assert answer.status_code == 400
    assert answer.json()["rows"] == []
    assert answer.json()["problem"]["code"] == "invalid-filter"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/instances?limit=1000000", 422),
        ("/instances?limit=x", 422),
        ("/instances?before=-1", 422),
        ("/instances?colour=red", 422),
        ("/instances?q=a:1&q=b:2", 422),
        ("/instances/99999999", 404),
        ("/instances/99999999999999999999", 422),
        ("/instances/../../etc/passwd", 404),
        ("/nowhere", 404),
        ("/?window=1y", 422),
    ],
)
def test_a_bad_request_gets_a_page_and_a_problem(client: TestClient, path: str, status: int) -> None:
    html, answer = client.get(path), client.get(f"/api/v1{path}")
    assert (html.status_code, answer.status_code) == (status, status)
    assert "Traceback" not in html.text
    assert "h-problem" in html.text
    assert answer.json()["problem"]["message"]


def test_an_unknown_step_names_those_that_there_are(site: Site, client: TestClient) -> None:
    answer = client.get(f"/api/v1/instances/{site.order}?step=nope")
    assert answer.status_code == 404
    assert "inform_partner" in answer.json()["problem"]["hint"]


def test_an_instance_shows_each_step_in_its_state_and_why_it_waits(site: Site, client: TestClient) -> None:
    page = client.get(f"/api/v1/instances/{site.order}").json()
    states = {step["key"]: step["state"] for step in page["steps"]}
    assert states == {
        "validate": "completed",
        "update_crm": "retrying",
        "inform_partner": "held",
        "await_courier": "waiting",
        "cool_off": "waiting",
        "close_order": "idle",
        "done": "idle",
    }
    assert page["state"] == "held"
    why = {each["step"]: each["message"] for each in page["why"]}
    assert why["inform_partner"].startswith("inform_partner failed 1 of 1 attempts.")
    assert why["await_courier"].startswith("await_courier waits for one of the signals ")
    assert why["update_crm"].startswith("update_crm is backing off: attempt 2 of 9 starts in ")
    assert why["cool_off"].startswith("cool_off waits until ")
    assert page["why"][0]["step"] == "inform_partner"
    edges = {(edge["source"], edge["target"]): edge["state"] for edge in page["edges"]}
    assert edges["validate", "inform_partner"] == "taken"
    assert edges["validate", "done"] == "dead"
    assert edges["inform_partner", "close_order"] == "open"
    html = client.get(f"/instances/{site.order}?step=inform_partner").text
    assert "TimeoutError: no answer in 3 s" in html
    assert html.count('class="node ') == 7
    assert "shop.py" in html  # the traceback, in the user's code


def test_hidden_keys_are_hidden_at_any_depth_on_pages_and_in_the_api(site: Site, client: TestClient) -> None:
    for path in ("", "?step=validate", "/steps", "/data"):
        for prefix in ("", "/api/v1"):
            text = client.get(f"{prefix}/instances/{site.order}{path}").text
            assert "hunter2" not in text
            assert "t0ken" not in text
    with site.client(hidden_keys=["country"]) as other:
        text = other.get(f"/instances/{site.order}/data").text
        assert "hunter2" in text
        assert "&#34;DE&#34;" not in text
    with site.client(shows_data=False) as other:
        assert other.get(f"/api/v1/instances/{site.order}/data").json()["input"] == {
            "value": None,
            "size": 57,
            "state": "hidden",
        }


def test_the_api_is_described_for_each_page_and_action(client: TestClient) -> None:
    document = client.get("/api/v1/openapi.json").json()
    operations = {each["operationId"] for path in document["paths"].values() for each in path.values()}
    assert operations == {page.name for page in PAGES} | {action.name for action in ACTIONS}
    references = set(_references(document))
    assert references <= {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [each for part in value.values() for each in _references(part)]
    return [each for part in value for each in _references(part)] if isinstance(value, list) else []


@pytest.mark.parametrize("prefix", ["", "/a", "/a/b/"])
def test_every_link_works_under_a_prefix(site: Site, prefix: str) -> None:
    from starlette.applications import Starlette
    from starlette.routing import Mount

    host = Starlette(routes=[Mount(prefix or "/", dashboard(site.app))])
    root = prefix.rstrip("/")
    with TestClient(host, base_url="http://127.0.0.1", client=("127.0.0.1", 1), follow_redirects=False) as client:
        seen: set[str] = set()
        new = {f"{root}/", f"{root}/instances/{site.order}?step=await_courier"}
        while new and len(seen) < 120:
            url = new.pop()
            seen.add(url)
            if url.endswith("/live"):
                continue
            response = client.get(url)
            verbs = ("retry", "cancel", "delete")
            needs_filter = url in {f"{root}/{name}/{verb}" for name in ("instances", "tasks") for verb in verbs}
            assert response.status_code == (422 if needs_filter else 200), url
            if response.headers["content-type"].startswith("text/html"):
                urls = set(parsed(response.text).urls())
                assert all(each.startswith(f"{root}/") for each in urls), url
                assert not any("//" in each for each in urls), url
                new |= urls - seen


def test_an_action_without_javascript_returns_to_its_page_with_a_toast(site: Site) -> None:
    run = site.start_order("no-js")
    with site.client() as client:
        page = f"http://127.0.0.1/instances/{run}"
        for referer in (page, "https://evil.example/x", ""):
            sent = client.post(
                f"/instances/{run}/steps/inform_partner/retry", data={}, headers={**OURS, "referer": referer}
            )
            if referer == page:
                assert (sent.status_code, sent.headers["location"]) == (303, f"/instances/{run}")
                assert "inform_partner runs again." in client.get(f"/instances/{run}").text
                assert "inform_partner runs again." not in client.get(f"/instances/{run}").text  # shown once
                site.drain()
            else:
                assert sent.headers.get("location", "/") == "/"


def test_a_schema_that_is_missing_is_a_clear_problem(server: Server, new_database: Callable[..., str]) -> None:
    app = shop(new_database(server))
    with TestClient(dashboard(app), base_url="http://127.0.0.1", client=("127.0.0.1", 1)) as client:
        response = client.get("/instances")
        answer = client.get("/api/v1/instances")
    app.close()
    assert response.status_code == answer.status_code == 503
    assert "pgflow migrate" in answer.json()["problem"]["hint"]


def test_a_database_that_does_not_answer_is_a_clear_problem() -> None:
    app = shop("postgresql://127.0.0.1:9/nowhere")
    with TestClient(dashboard(app), base_url="http://127.0.0.1", client=("127.0.0.1", 1)) as client:
        assert client.get("/instances").status_code == 503
        assert "127.0.0.1" in client.get("/api/v1/instances").json()["problem"]["message"]
        assert client.get("/health").status_code == 200
    app.close()


def test_a_role_that_only_reads_sees_every_page_and_acts_on_nothing(site: Site) -> None:
    from pgflow.migrations import grants

    with connect(site.dsn, "test") as conn:
        conn.execute("drop role if exists web_reader")
        conn.execute("create role web_reader login")
        grants.apply(conn, {"dashboard": ["web_reader"]})
    reader = shop(make_conninfo(site.dsn, user="web_reader"))
    with TestClient(dashboard(reader), base_url="http://127.0.0.1", client=("127.0.0.1", 1)) as client:
        for page in PAGES:
            response = client.get(example_path(page.path, site.order))
            assert response.status_code == 200, (page.name, response.text[-600:])
        cancelled = client.post(f"/api/v1/instances/{site.order}/cancel", json={}, headers=OURS)
        assert cancelled.status_code == 403
        assert "pgflow roles" in cancelled.json()["problem"]["hint"]
    reader.close()
