"""Hostile text in every field that a person or a program can fill stays text."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from pgflow.database.connect import connect
from tests.conftest import Server
from tests.web.site import PARTIAL, Site, parsed

SCRIPT = "</title></textarea><script>alert(1)</script><img src=x onerror=alert(1)>'\"><xss-element>"
RTL = "\u202eevil\u2066" + "\U0001f4a3" * 3 + "/../%2e%2e/{{7*7}}${7*7}"


@pytest.fixture(scope="module")
def hostile(server: Server, migrated_database: Callable[[Server], str]) -> Iterator[Site]:
    """A shop whose rows hold hostile text in every column that a page reads."""
    site = Site(migrated_database(server))
    with connect(site.dsn, "test") as conn:
        error = json.dumps(
            {"reason": SCRIPT, "type": SCRIPT, "trace": f'  File "{SCRIPT}", line 1, in {SCRIPT}\n    {SCRIPT}'}
        )
        values = {"text": SCRIPT, "json": json.dumps({SCRIPT: SCRIPT, "list": [SCRIPT, RTL]}), "error": error}
        conn.execute(
            "update pgflow.instances set id = 'order::' || %(text)s, input = %(json)s, "
            " tags = array[left(%(text)s, 64)], metadata = %(json)s where workflow = 'OrderFlow'",
            values,
        )
        conn.execute("update pgflow.instances set error = %(error)s where status = 'failed'", values)
        conn.execute(
            "update pgflow.jobs set errors = jsonb_build_array(%(error)s::jsonb), key = %(text)s,"
            " progress = jsonb_build_object('at', 0.5, 'note', %(text)s::text), queue = 'q-' || %(text)s",
            values,
        )
        conn.execute(
            "update pgflow.jobs set awaits = jsonb_build_object(%(text)s::text, 'arrived')"
            " where step = 'await_courier'",
            values,
        )
        conn.execute("update pgflow.step_results set output = %(json)s, event = %(text)s", values)
        conn.execute(
            "insert into pgflow.signals (run, name, payload, step) values (%(run)s, %(text)s, %(json)s, %(text)s)",
            {**values, "run": site.order},
        )
        conn.execute(
            "insert into pgflow.queues (name, paused_at, paused_by) values ('q-' || %(text)s, now(), %(text)s)", values
        )
        conn.execute("update pgflow.workers set node = %(text)s", values)
        conn.execute(
            "update pgflow.definitions set graph = jsonb_set(graph, '{steps,await_courier,signals}',"
            " jsonb_build_array(%(text)s::text)) where workflow = 'OrderFlow'",
            values,
        )
    yield site
    site.app.close()


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/instances",
        "/instances?q=state:failed",
        "/instances/{run}",
        "/instances/{run}?step=inform_partner",
        "/instances/{run}?step=await_courier",
        "/instances/{run}/steps",
        "/instances/{run}/data",
        "/instances/{run}/signal",
        "/instances/{run}/cancel",
        "/instances/{run}/steps/inform_partner/complete",
        "/instances/retry?q=state:failed",
    ],
)
def test_stored_text_makes_no_element(hostile: Site, path: str) -> None:
    with hostile.client() as client:
        response = client.get(path.format(run=hostile.order))
    assert response.status_code == 200
    harmless(response.text)
    assert "alert(1)" in response.text or "retry" in path or "complete" in path


@pytest.mark.parametrize("name", ["q", "id", "window", "step", SCRIPT])
def test_text_of_a_url_makes_no_element(hostile: Site, name: str) -> None:
    with hostile.client() as client:
        for path in (
            "/",
            "/instances",
            f"/instances/{hostile.order}",
            f"/instances/{hostile.order}/steps",
            "/" + SCRIPT,
        ):
            for headers in ({}, PARTIAL):
                response = client.get(path, params={name: SCRIPT}, headers=headers)
                harmless(response.text)
        sent = client.post(
            f"/instances/{hostile.order}/signal", data={"event": SCRIPT, "payload": SCRIPT}, headers=PARTIAL
        )
        harmless(sent.text)


def harmless(text: str) -> None:
    """Check that no element or attribute was made of the hostile text."""
    page = parsed(text)
    tags = [tag for tag, _ in page.elements]
    assert "xss-element" not in tags
    assert "img" not in tags
    assert tags.count("script") in (0, 2)
    assert not any("onerror" in attributes for _, attributes in page.elements)
