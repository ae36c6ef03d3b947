"""Render what requests for HTML are answered with: pages, dialogs, the result of an action, and problems."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from pgflow.web.rendering.forms import FieldErrors
from pgflow.web.rendering.templates import Links, Templates
from pgflow.web.routing.action import Action, Done, Form
from pgflow.web.routing.context import Context
from pgflow.web.routing.page import Nav, Page, Problem, View
from pgflow.web.routing.problems import field_errors, problem_of
from pgflow.web.security.access import Access

__all__ = ["Screen", "Shown"]

TOAST = "pgflow_toast"  # the cookie that carries the result of an action to the next page
TO_TOASTS = {"HX-Retarget": ".toasts", "HX-Reswap": "beforeend"}
TONES = {"done": "completed", "partial": "retrying"}


@dataclass(frozen=True, slots=True)
class Shown:
    """What the layout shows around a page; templates know it as `shown`.

    `links` makes URLs; `may` is whether the person has a right, and so whether a button is there at all.
    """

    links: Links
    context: Context
    nav: Sequence[tuple[str, Nav]]
    access: Access | None
    active: str
    now: datetime
    here: str
    seconds: float | None = None
    queries: int = 0
    toast: Mapping[str, str] | None = None

    def may(self, right: str) -> bool:
        """Whether the person may act so."""
        return self.access is not None and right in self.access.rights

    def leads_to(self, *names: str) -> bool:
        """Whether there are pages of these names to link to."""
        return all(map(self.links.has, names))


class Screen:
    """Renders for one dashboard, whose routes have `paths` by name."""

    def __init__(self, context: Context, templates: Templates, pages: Sequence[Page[Any]], paths: Mapping[str, str]):
        self._context = context
        self._templates = templates
        self._paths = paths
        listed = sorted((page for page in pages if page.nav), key=lambda page: page.nav.order if page.nav else 0)
        self._nav = [(page.name, page.nav) for page in listed if page.nav]

    def page(self, page: Page[Any], view: View[Any], model: Any, seconds: float) -> Response:
        """Render a page."""
        shown = self._shown(view.request, view.access, page.name, view, seconds)
        text = self._templates.render(f"{page.name}.html", page=model, shown=shown, params=view.params)
        status = 400 if getattr(model, "problem", None) is not None else 200
        response = HTMLResponse(text, status)
        if shown.toast is not None:
            response.delete_cookie(TOAST, path=shown.links.prefix or "/")
        return response

    def problem(self, request: Request, access: Access | None, status: int, problem: Problem) -> Response:
        """Render a problem: a page, or a toast where a part of a page was requested."""
        shown = self._shown(request, access, "")
        if _is_partial(request):
            text = self._templates.render(
                "toast.html", shown=shown, tone="failed", text=problem.message, hint=problem.hint
            )
            return HTMLResponse(text, status, headers=TO_TOASTS)
        return HTMLResponse(self._templates.render("problem.html", shown=shown, problem=problem, status=status), status)

    def form(
        self,
        action: Action[Any, Any],
        view: View[Any],
        form: Form,
        errors: Mapping[str, str],
        problem: Problem | None = None,
        status: int = 200,
    ) -> Response:
        """Render the dialog of an action: a part of a page, or a page of its own without JavaScript."""
        fields = [replace(each, error=errors.get(each.name, each.error)) for each in form.fields or ()]
        shown = self._shown(view.request, view.access, "", view)
        template = "dialog.html" if _is_partial(view.request) else "dialog-page.html"
        others = {name: text for name, text in errors.items() if name not in {each.name for each in fields}}
        if others and problem is None:
            message = "; ".join(f"{name}: {text}" if name else text for name, text in others.items())
            problem = Problem(code="invalid-value", message=message)
        text = self._templates.render(
            template, shown=shown, form=replace(form, fields=fields), url=shown.here, problem=problem, action=action
        )
        return HTMLResponse(text, status)

    def refused(
        self,
        action: Action[Any, Any],
        view: View[Any],
        form: Form | None,
        data: Mapping[str, str],
        error: FieldErrors | ValidationError | Exception,
    ) -> Response:
        """Render the dialog again with what is wrong, and as it was filled."""
        errors: Mapping[str, str] = {}
        status, problem = 422, None
        match error:
            case FieldErrors():
                errors = error.errors
            case ValidationError():
                errors = field_errors(error)
            case _:
                status, problem = problem_of(error)
        if form is None:
            return self.problem(view.request, view.access, status, problem or Problem(code="invalid-value", message=""))
        filled = [replace(each, value=data.get(each.name, "")) for each in form.fields or ()]
        return self.form(action, view, replace(form, fields=filled), errors, problem, status)

    def done(self, view: View[Any], done: Done) -> Response:
        """Answer an action: a toast and a fresh page, or a redirect without JavaScript."""
        shown = self._shown(view.request, view.access, "", view)
        if done.more is not None:
            template = "progress.html" if _is_partial(view.request) else "progress-page.html"
            return HTMLResponse(self._templates.render(template, shown=shown, done=done))
        go = None if done.go is None else shown.links.prefix + done.go
        toast = {"text": done.message, "tone": TONES[done.outcome]}
        if _is_partial(view.request) and go is None:
            text = self._templates.render("toast.html", shown=shown, hint=None, **toast)
            return HTMLResponse(text, headers={"HX-Trigger": "pgflow:done", **TO_TOASTS})
        response: Response
        if _is_partial(view.request):
            response = HTMLResponse("", headers={"HX-Redirect": go or ""})
        else:
            response = RedirectResponse(go or self._back(view.request, shown.links), 303)
        path = shown.links.prefix or "/"
        response.set_cookie(TOAST, quote(json.dumps(toast)), 30, path=path, httponly=True, samesite="strict")
        return response

    def _back(self, request: Request, links: Links) -> str:
        """Return the page that a form was sent from: within the dashboard, whatever the header has."""
        referer = urlsplit(request.headers.get("referer", ""))
        is_ours = referer.netloc == request.headers.get("host") and referer.path.startswith(f"{links.prefix}/")
        if is_ours and referer.path != request.url.path:
            return referer.path + (f"?{referer.query}" if referer.query else "")
        return links("overview")

    def _shown(
        self,
        request: Request,
        access: Access | None,
        active: str,
        view: View[Any] | None = None,
        seconds: float | None = None,
    ) -> Shown:
        prefix = str(request.scope.get("root_path", "")).rstrip("/")
        query = request.url.query
        path = str(request.scope["path"]).removeprefix(prefix)
        return Shown(
            links=Links(quote(prefix), self._paths),
            context=self._context,
            nav=self._nav,
            access=access,
            active=active,
            now=datetime.now(UTC),
            here=quote(prefix + path) + (f"?{query}" if query else ""),
            seconds=seconds,
            queries=0 if view is None else view.session.queries,
            toast=_toast(request),
        )


def _is_partial(request: Request) -> bool:
    """Whether htmx asks for a part of a page."""
    return request.headers.get("hx-request") == "true"


def _toast(request: Request) -> Mapping[str, str] | None:
    """Return the toast that the last action left; None for a cookie that is not ours."""
    try:
        found = json.loads(unquote(request.cookies.get(TOAST, "")))
        return {"text": str(found["text"])[:500], "tone": found["tone"]} if found["tone"] in TONES.values() else None
    except (ValueError, TypeError, KeyError):
        return None
