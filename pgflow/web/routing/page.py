"""What a page is: a right, parameters, and a function that reads a model, which a template and the JSON API render."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict
from starlette.requests import Request

from pgflow.database.statement import Statement
from pgflow.web.data import Session
from pgflow.web.routing.context import Context
from pgflow.web.security.access import Access

__all__ = ["Model", "Nav", "NoParams", "Page", "Params", "Problem", "View"]

T = TypeVar("T")
P = TypeVar("P", bound=BaseModel)
P_co = TypeVar("P_co", bound=BaseModel, covariant=True)


class Params(BaseModel):
    """The base of a page's parameters, of the path and of the query alike; an unknown one is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class NoParams(Params):
    """For a page without parameters."""


class Problem(BaseModel):
    """What was wrong with a request, as the page and the API show it: a stable code, what is wrong, and the fix."""

    code: str
    message: str
    hint: str | None = None


class Model(BaseModel):
    """The base of what pages return. With a `problem`, the response has the status 400."""

    model_config = ConfigDict(frozen=True, ser_json_timedelta="float")

    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class Nav:
    """The entry of a page in the navigation: its text, the key after `g`, and its place from the left."""

    text: str
    key: str
    order: int


@dataclass(frozen=True, slots=True)
class View(Generic[P_co]):
    """One request for a page or a dialog: its parameters, who asks, and how it reads."""

    request: Request
    context: Context
    access: Access
    session: Session
    params: P_co

    @property
    def schema(self) -> str:
        """The schema of pgflow's tables."""
        return self.session.schema

    async def read(self, statement: Statement[T]) -> T:
        """Run a statement in the request's read-only transaction."""
        return await self.session.read(statement)

    def may(self, right: str) -> bool:
        """Whether this person may do what `right` stands for."""
        return right in self.access.rights


@dataclass(frozen=True, slots=True)
class Page(Generic[P]):
    """One page of the dashboard, and one resource of the API.

    - `name`: of its template, of its route and of its operation in OpenAPI. `path`: "/instances/{run:int}"; the API has
      it under /api/v1.
    - `load`: reads the model. `params`: its parameters, those of the path included.
    - `title`: in OpenAPI, and the page's own unless its template has another.
    - `right`: who may see it. `nav`: its entry in the navigation; None for a page that others lead to.

        PAGE = Page("queues", "/queues", "Queues", Queues, load, nav=Nav("Queues", "q", 5))
    """

    name: str
    path: str
    title: str
    model: type[BaseModel]
    load: Callable[[View[P]], Awaitable[Any]]
    params: type[P] = NoParams  # type: ignore[assignment]  # the default of a page whose P is NoParams
    right: str = "read"
    nav: Nav | None = None
