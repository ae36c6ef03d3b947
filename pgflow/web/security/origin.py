"""Refuse requests that another site makes a browser send (CSRF)."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.requests import Request

__all__ = ["origin_fault"]

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def origin_fault(request: Request) -> str | None:
    """Return why a request that changes something is refused, None for one from our own pages or from a program.

    Browsers state where a request comes from in Sec-Fetch-Site, which no script can set. Where it is absent, in an old
    browser or behind an old proxy, Origin has to name this host. A program sends neither, and a bearer token, which no
    browser adds by itself.
    """
    if request.method in SAFE_METHODS:
        return None
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return None if site == "same-origin" else f"it comes from another site (Sec-Fetch-Site: {site})"
    origin = request.headers.get("origin")
    if origin is not None:
        return (
            None if urlsplit(origin).netloc == request.headers.get("host") else f"it comes from another site: {origin}"
        )
    if request.headers.get("authorization", "").lower().startswith("bearer "):
        return None
    return "it does not state where it comes from; a program sends a bearer token, or an Origin header with this host"
