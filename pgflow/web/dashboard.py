"""`dashboard(app)`: the dashboard of an app, as an ASGI app to mount or to serve."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from pgflow.app import Pgflow
from pgflow.errors import ConfigError
from pgflow.web.data import Database
from pgflow.web.live import Live
from pgflow.web.rendering.templates import STATIC, Templates
from pgflow.web.routing.context import Context
from pgflow.web.routing.endpoints import Gate
from pgflow.web.routing.openapi import openapi
from pgflow.web.routing.problems import problem_of
from pgflow.web.routing.screen import Screen
from pgflow.web.security.access import Access
from pgflow.web.security.authentication import Authenticator, Authorize, Callback, Local
from pgflow.web.security.headers import SecurityHeaders
from pgflow.web.settings import HIDDEN_KEYS, Settings
from pgflow.web.table import ACTIONS, PAGES

__all__ = ["dashboard"]


class CachedFiles(StaticFiles):
    """Static files, which browsers may keep: their URLs change with them."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return a file."""
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response


LONGEST_TIMEOUT = timedelta(minutes=10)


def dashboard(
    app: Pgflow,
    *,
    authorize: Authorize | None = None,
    authenticator: Authenticator | None = None,
    title: str = "",
    tone: str = "",
    read_only: bool = False,
    hidden_keys: Iterable[str] = HIDDEN_KEYS,
    shows_data: bool = True,
    query_timeout: timedelta = timedelta(seconds=5),
    home: str | None = None,
) -> Starlette:
    """Return the dashboard of an app, to mount under any path of an ASGI program.

    `authorize(request)`, sync or async, decides who may do what: it returns `ALL`, `READ_ONLY`, the names of rights, or
    an `Access` with the person's name for the audit; `Deny` or None refuses. Without it the dashboard answers to
    requests of this machine only, whatever address the program listens on.

    `title` is a badge beside the name, such as "Production", and `tone` its colour: "prod" or "stage". `read_only`
    takes all actions away. Values under `hidden_keys` are not shown, at any depth; `shows_data=False` shows no inputs,
    outputs and payloads at all. `query_timeout` bounds each query of a page. `home` is a link back to the program.
    Raises `ConfigError` for an invalid option.

        app.mount("/pgflow", dashboard(flows, authorize=lambda request: ALL if request.user.is_staff else None))
    """
    if authorize is not None and authenticator is not None:
        raise ConfigError("authorize and authenticator are both given", hint="Pass one of them.")
    if not timedelta(0) < query_timeout <= LONGEST_TIMEOUT:
        raise ConfigError(f"query_timeout must be above zero and at most 10 minutes, got {query_timeout}")
    if isinstance(hidden_keys, str):
        raise ConfigError(f"hidden_keys must be several keys, got {hidden_keys!r}", hint=f'Write ["{hidden_keys}"].')
    settings = Settings(
        title=title,
        tone=tone,
        is_read_only=read_only,
        authenticator=Callback(authorize) if authorize is not None else authenticator or Local(),
        hidden_keys=tuple(hidden_keys),
        shows_data=shows_data,
        query_timeout=query_timeout,
        home=home,
    )
    return assemble(app, settings)


def assemble(app: Pgflow, settings: Settings) -> Starlette:
    """Return the dashboard of an app with these settings, from the route table."""
    database = Database(
        app.dsn,
        app.schema,
        pooler=app.pooler,
        query_timeout=settings.query_timeout,
        action_timeout=settings.action_timeout,
    )
    context = Context(app, database, settings, Live(app.dsn, app.schema, pooler=app.pooler))
    paths = {page.name: page.path for page in PAGES} | {action.name: action.path for action in ACTIONS}
    paths |= {"live": "/live", "openapi": "/api/v1/openapi.json"}
    screen = Screen(context, Templates({"version": _version(), "settings": settings}), PAGES, paths)
    gate = Gate(context, screen)

    async def live(request: Request, access: Access) -> Response:
        headers = {"X-Accel-Buffering": "no"}
        return StreamingResponse(context.live.changes(), media_type="text/event-stream", headers=headers)

    async def describe(request: Request, access: Access) -> Response:
        prefix = str(request.scope.get("root_path", "")).rstrip("/")
        return JSONResponse(openapi(PAGES, ACTIONS, prefix, _version()))

    async def health(request: Request) -> Response:
        return PlainTextResponse("ok")

    async def robots(request: Request) -> Response:
        return PlainTextResponse("User-agent: *\nDisallow: /\n")

    async def not_found(request: Request, error: Exception) -> Response:
        status, problem = problem_of(error)
        if str(request.scope["path"]).removeprefix(str(request.scope.get("root_path", ""))).startswith("/api/"):
            return JSONResponse({"problem": problem.model_dump()}, status)
        return screen.problem(request, None, status, problem)

    routes: list[BaseRoute] = [
        Route("/live", gate.other("read", live), name="live"),
        Route("/api/v1/openapi.json", gate.other("read", describe, as_json=True), name="openapi"),
        Route("/health", health, name="health"),
        Route("/robots.txt", robots, name="robots"),
        Mount("/static", CachedFiles(directory=STATIC), name="static"),
    ]
    for page in PAGES:
        routes += [
            Route(page.path, gate.page(page), name=page.name, methods=["GET"]),
            Route(f"/api/v1{page.path}", gate.resource(page), name=f"api.{page.name}", methods=["GET"]),
        ]
    for action in ACTIONS:
        routes += [
            Route(action.path, gate.dialog(action), name=f"ask.{action.name}", methods=["GET"]),
            Route(action.path, gate.action(action), name=action.name, methods=["POST"]),
            Route(f"/api/v1{action.path}", gate.operation(action), name=f"api.{action.name}", methods=["POST"]),
        ]

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        yield
        await context.live.close()
        await database.close()

    return Starlette(
        routes=routes,
        middleware=[Middleware(SecurityHeaders), Middleware(GZipMiddleware, minimum_size=1000)],
        exception_handlers={HTTPException: not_found},
        lifespan=lifespan,
    )


def _version() -> str:
    try:
        return version("pgflow-engine")
    except PackageNotFoundError:
        return ""
