"""The gate: the only code that calls pages and actions, after it has checked origin, identity and right."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from pgflow.errors import InvalidValue, PgflowError
from pgflow.web.data import Session
from pgflow.web.rendering.forms import FieldErrors, fields_of, filled, read_form
from pgflow.web.routing.action import Act, Action, Done, Form
from pgflow.web.routing.context import Context
from pgflow.web.routing.page import Page, Problem, View
from pgflow.web.routing.problems import Forbidden, Refused, Unauthenticated, field_errors, problem_of
from pgflow.web.routing.screen import Screen
from pgflow.web.security.access import READ_ONLY, RIGHTS, Access
from pgflow.web.security.authentication import Unknown
from pgflow.web.security.origin import origin_fault

__all__ = ["Gate"]

Endpoint: TypeAlias = Callable[[Request], Awaitable[Response]]
Answer: TypeAlias = Callable[[Request, Access], Awaitable[Response]]
MAX_BODY = 2 * 1_048_576  # bytes of a form or of a JSON body
MAX_FIELDS = 200
REPEATED = "a parameter may be given once"


class Gate:
    """Makes the endpoints of pages and actions, as HTML and in the API."""

    def __init__(self, context: Context, screen: Screen) -> None:
        self._context = context
        self._screen = screen

    # -- endpoints

    def page(self, page: Page[Any]) -> Endpoint:
        """Return the endpoint that renders a page."""
        return self._guarded(page.right, partial(self._page, page), self._screen.problem)

    def resource(self, page: Page[Any]) -> Endpoint:
        """Return the endpoint of the API with a page's model."""
        return self._guarded(page.right, partial(self._resource, page), _problem_as_json)

    def dialog(self, action: Action[Any, Any]) -> Endpoint:
        """Return the endpoint that asks before an action."""
        return self._guarded(action.right, partial(self._dialog, action), self._screen.problem)

    def action(self, action: Action[Any, Any]) -> Endpoint:
        """Return the endpoint of an action's form."""
        return self._guarded(action.right, partial(self._action, action), self._screen.problem)

    def operation(self, action: Action[Any, Any]) -> Endpoint:
        """Return the endpoint of an action in the API."""
        return self._guarded(action.right, partial(self._operation, action), _problem_as_json)

    def other(self, right: str, answer: Answer, *, as_json: bool = False) -> Endpoint:
        """Return the endpoint of what is neither page nor action, such as the event stream."""
        return self._guarded(right, answer, _problem_as_json if as_json else self._screen.problem)

    # -- the checks

    def _guarded(
        self, right: str, answer: Answer, show: Callable[[Request, Access | None, int, Problem], Response]
    ) -> Endpoint:
        async def endpoint(request: Request) -> Response:
            access: Access | None = None
            try:
                if (fault := origin_fault(request)) is not None:
                    raise Refused(f"the request was refused: {fault}")
                access = await self._identified(request)
                if right not in access.rights:
                    raise Forbidden(
                        f"{access.user or 'you'} may not: {RIGHTS[right].lower()}",
                        hint=f"It needs the right {right!r}."
                        + (" This dashboard is read-only." if self._context.settings.is_read_only else ""),
                    )
                return await answer(request, access)
            except Unauthenticated as error:
                if error.login is not None:
                    return RedirectResponse(error.login, 303)
                status, problem = problem_of(error)
                response = show(request, None, status, problem)
                if error.challenge is not None:
                    response.headers["WWW-Authenticate"] = error.challenge
                return response
            except Exception as error:
                status, problem = problem_of(error)
                return show(request, access, status, problem)

        return endpoint

    async def _identified(self, request: Request) -> Access:
        found = await self._context.settings.authenticator.identify(request)
        if isinstance(found, Unknown):
            raise Unauthenticated(found.reason, challenge=found.challenge, login=found.login)
        if self._context.settings.is_read_only:
            return Access(found.rights & READ_ONLY.rights, found.user)
        return found

    # -- pages

    def _view(self, request: Request, access: Access, session: Session, params: type[BaseModel]) -> View[Any]:
        return View(request, self._context, access, session, params.model_validate(_given(request)))

    async def _page(self, page: Page[Any], request: Request, access: Access) -> Response:
        began = perf_counter()
        async with Session(self._context.database) as session:
            view = self._view(request, access, session, page.params)
            model = await page.load(view)
        return await run_in_threadpool(self._screen.page, page, view, model, perf_counter() - began)

    async def _resource(self, page: Page[Any], request: Request, access: Access) -> Response:
        async with Session(self._context.database) as session:
            model = await page.load(self._view(request, access, session, page.params))
        status = 400 if getattr(model, "problem", None) is not None else 200
        return Response(model.model_dump_json(), status, media_type="application/json")

    # -- actions

    async def _dialog(self, action: Action[Any, Any], request: Request, access: Access) -> Response:
        async with Session(self._context.database) as session:
            view = self._view(request, access, session, action.params)
            form = await action.ask(view)
        return self._screen.form(action, view, _with_fields(action, form), {})

    async def _action(self, action: Action[Any, Any], request: Request, access: Access) -> Response:
        data = await _form(request)
        async with Session(self._context.database) as session:
            view = self._view(request, access, session, action.params)
            form: Form | None = None
            try:
                form = _with_fields(action, await action.ask(view))
                given = action.input.model_validate(read_form(form.fields or (), data))
                done = await action.perform(Act(view, given))
            except (FieldErrors, ValidationError, PgflowError) as error:
                return self._screen.refused(action, view, form, data, error)
        return self._screen.done(view, done)

    async def _operation(self, action: Action[Any, Any], request: Request, access: Access) -> Response:
        body = await _json(request)
        try:
            given = action.input.model_validate(body)
            async with Session(self._context.database) as session:
                view = self._view(request, access, session, action.params)
                done: Done = await action.perform(Act(view, given))
        except (ValidationError, FieldErrors) as error:
            errors = error.errors if isinstance(error, FieldErrors) else field_errors(error)
            message = "; ".join(f"{name or 'the body'}: {each}" for name, each in errors.items())
            problem = Problem(code="invalid-value", message=message)
            return JSONResponse({"problem": problem.model_dump(), "fields": errors}, 422)
        return Response(done.model_dump_json(exclude={"go"}), media_type="application/json")


def _given(request: Request) -> dict[str, Any]:
    """Return the parameters of the path and of the query. Raises `InvalidValue` for one that is given twice."""
    query = request.query_params
    for name in query:
        if len(query.getlist(name)) > 1:
            raise InvalidValue(f"{name} is given {len(query.getlist(name))} times: {REPEATED}")
    return {**query, **request.path_params}


async def _body(request: Request) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            raise InvalidValue(f"the body is larger than {MAX_BODY:,} bytes", hint="Use the library for large values.")
    return body


async def _form(request: Request) -> dict[str, str]:
    kind, body = _content_type(request), await _body(request)
    if not body:
        return {}
    if kind != "application/x-www-form-urlencoded":
        raise InvalidValue(f"a form is needed, got {kind or 'no content type'}", hint="For JSON there is /api/v1.")
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=True, max_num_fields=MAX_FIELDS))
    except ValueError as error:
        raise InvalidValue(f"the form cannot be read: {error}") from None


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _json(request: Request) -> Any:
    kind = _content_type(request)
    body = await _body(request)
    if not body:
        return {}
    if kind != "application/json":
        raise InvalidValue(
            f"JSON is needed, got {kind or 'no content type'}", hint="Send Content-Type: application/json."
        )
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidValue(f"the body is not JSON: {error}") from None


def _with_fields(action: Action[Any, Any], form: Form) -> Form:
    if form.fields is not None:
        return form
    fields = [filled(each, form.values) for each in fields_of(action.input.model_json_schema())]
    return replace(form, fields=fields)


def _problem_as_json(request: Request, access: Access | None, status: int, problem: Problem) -> Response:
    return JSONResponse({"problem": problem.model_dump()}, status)
