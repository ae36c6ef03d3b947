"""Every route is behind the gate: rights, read-only mode, other sites, other machines. Browsers get strict headers."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest
from starlette.requests import Request

from pgflow.errors import ConfigError
from pgflow.web import ALL, READ_ONLY, Access, Deny
from pgflow.web.routing.action import Action
from pgflow.web.routing.page import Page
from pgflow.web.security.access import RIGHTS
from pgflow.web.security.authentication import Basic, Bearer, FirstOf, Local, TrustedHeader
from pgflow.web.server import authenticator_of, check_address
from pgflow.web.table import ACTIONS, PAGES
from tests.web.site import OURS, Site, example_path, parsed

TOKEN = "0123456789abcdef"  # noqa: S105 -- of these tests


def requests_of(action: Action[Any, Any], run: int) -> list[tuple[str, str]]:
    """Return every way to reach an action."""
    path = example_path(action.path, run)
    return [("GET", path), ("POST", path), ("POST", f"/api/v1{path}")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_is_refused_without_its_right(site: Site, page: Page[Any]) -> None:
    others = Access(set(RIGHTS) - {page.right})
    with site.client(authorize=lambda request: others) as client:
        path = example_path(page.path, site.order)
        assert client.get(path).status_code == 403
        refused = client.get(f"/api/v1{path}")
    assert refused.status_code == 403
    assert refused.json()["problem"]["code"] == "forbidden"


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.name)
def test_an_action_is_refused_without_its_right_and_when_read_only(site: Site, action: Action[Any, Any]) -> None:
    others = Access(set(RIGHTS) - {action.right})
    before = site.audit()
    for options in (
        {"authorize": lambda request: others},
        {"authorize": lambda request: READ_ONLY},
        {"read_only": True},
    ):
        with site.client(**options) as client:
            for method, path in requests_of(action, site.order):
                response = client.request(method, path, headers=OURS)
                assert response.status_code == 403, (method, path, options)
    assert site.audit() == before


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.name)
@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"authorization": "Basic YTpi"},
        {},
    ],
    ids=str,
)
def test_a_post_of_another_site_is_refused(site: Site, action: Action[Any, Any], headers: dict[str, str]) -> None:
    before = site.audit()
    with site.client() as client:
        for method, path in requests_of(action, site.order):
            if method == "POST":
                response = client.post(path, headers=headers)
                assert response.status_code == 403, path
    assert site.audit() == before


def test_a_program_posts_with_its_token_or_with_our_origin(site: Site) -> None:
    path = f"/api/v1/instances/{site.order}/signal"
    with site.client(authenticator=Bearer(TOKEN)) as client:
        done = client.post(path, json={"event": "?? ?"}, headers={"authorization": f"Bearer {TOKEN}"})
        assert done.status_code == 422  # it came through the gate
        wrong = client.post(path, json={}, headers={"authorization": "Bearer 0123456789abcdeX"})
        assert wrong.status_code == 401
        assert wrong.headers["www-authenticate"] == "Bearer"
    with site.client() as client:
        assert client.post(path, json={"event": "?? ?"}, headers={"origin": "http://127.0.0.1"}).status_code == 422


@pytest.mark.parametrize(
    ("address", "base", "headers"),
    [
        ("10.0.0.7", "http://127.0.0.1", {}),
        ("127.0.0.1", "http://rebound.example", {}),
        ("127.0.0.1", "http://127.0.0.1", {"x-forwarded-for": "10.0.0.7"}),
        ("127.0.0.1", "http://127.0.0.1", {"forwarded": "for=10.0.0.7"}),
    ],
)
def test_without_authentication_only_this_machine_is_answered(
    site: Site, address: str, base: str, headers: dict[str, str]
) -> None:
    with site.client(address, base) as client:
        assert client.get("/instances", headers=headers).status_code == 403
        assert "A-1" not in client.get("/api/v1/instances", headers=headers).text
    with site.client("::1", "http://localhost") as client:
        assert client.get("/instances").status_code == 200


def test_basic_authentication_knows_one_user(site: Site) -> None:
    def header(pair: str) -> dict[str, str]:
        return {"authorization": "Basic " + base64.b64encode(pair.encode()).decode()}

    with site.client("10.0.0.7", authenticator=Basic("ada", "pässword")) as client:
        asked = client.get("/")
        assert asked.status_code == 401
        assert asked.headers["www-authenticate"].startswith("Basic")
        assert client.get("/", headers=header("ada:pässword")).status_code == 200
        for wrong in ("ada:password", "eve:pässword", "ada", ""):
            assert client.get("/", headers=header(wrong)).status_code == 401
        assert client.get("/", headers={"authorization": "Basic ???"}).status_code == 401


def test_a_proxy_names_the_user_in_a_header(site: Site) -> None:
    with site.client("10.0.0.7", authenticator=TrustedHeader("X-Forwarded-User")) as client:
        assert client.get("/").status_code == 403
        page = client.get("/", headers={"x-forwarded-user": "ada@example.com"})
        assert "ada@example.com" in page.text


async def _denied(request: Request) -> Deny:
    return Deny("https://login.example/")


def test_the_host_decides_by_a_function_that_may_be_async(site: Site) -> None:
    with site.client("10.0.0.7", authorize=_denied) as client:
        response = client.get("/")
        assert (response.status_code, response.headers["location"]) == (303, "https://login.example/")
    with site.client("10.0.0.7", authorize=lambda request: ["read"]) as client:
        assert client.get("/").status_code == 200
    with site.client("10.0.0.7", authorize=lambda request: None) as client:
        assert client.get("/").status_code == 403
    with site.client("10.0.0.7", authorize=lambda request: ["fly"]) as client:
        assert client.get("/").status_code == 500


def test_options_that_cannot_be_meant_are_refused(site: Site) -> None:
    with pytest.raises(ConfigError, match="both given"):
        site.client(authorize=lambda request: ALL, authenticator=Local())
    with pytest.raises(ConfigError, match="several keys"):
        site.client(hidden_keys="password")
    with pytest.raises(ConfigError, match="no right 'fly'"):
        Access({"fly"})
    with pytest.raises(ConfigError, match="shorter than 16"):
        Bearer("short")


def test_another_address_needs_authentication() -> None:
    with pytest.raises(ConfigError, match=r"not on 0\.0\.0\.0"):
        check_address("0.0.0.0", Local())  # noqa: S104 -- refused
    check_address("127.0.0.1", Local())
    check_address("::1", Local())
    known = authenticator_of({"PGFLOW_WEB_USER": "ada", "PGFLOW_WEB_PASSWORD": "p"}, header=None, is_insecure=False)
    assert isinstance(known, FirstOf)
    check_address("0.0.0.0", known)  # noqa: S104 -- with authentication
    check_address("0.0.0.0", Local(is_open=True))  # noqa: S104 -- as asked for
    with pytest.raises(ConfigError, match="PGFLOW_WEB_PASSWORD is not set"):
        authenticator_of({"PGFLOW_WEB_USER": "ada"}, header=None, is_insecure=False)


def test_every_response_has_the_security_headers_and_no_inline_code(site: Site) -> None:
    paths = [example_path(page.path, site.order) for page in PAGES]
    paths += [example_path(action.path, site.order) for action in ACTIONS if "operation" not in action.path]
    with site.client() as client:
        for path in [*paths, "/nowhere", "/static/app.js", "/instances?q=nope:1", "/api/v1/instances"]:
            response = client.get(path, params={"q": "state:failed"} if path.startswith("/instances/") else None)
            policy = response.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert response.headers["x-content-type-options"] == "nosniff"
            assert response.headers["referrer-policy"] == "same-origin"
            if response.headers["content-type"].startswith("text/html"):
                page = parsed(response.text)
                assert response.headers["cache-control"] == "no-store"
                for tag, attributes in page.elements:
                    assert "style" not in attributes, (path, tag)
                    assert tag != "style", path
                    assert not any(name.startswith(("on", "hx-on")) for name in attributes), (path, tag)
                    assert tag != "script" or "src" in attributes, path
                assert not re.search(r"(?:src|href)=\"(?:https?:)?//", response.text), path


def test_a_get_changes_nothing(site: Site) -> None:
    before, seen = site.audit(), site.get()
    with site.client() as client:
        for action in ACTIONS:
            client.get(example_path(action.path, site.order), headers={"sec-fetch-site": "cross-site"})
    assert site.audit() == before
    assert site.get() == seen
