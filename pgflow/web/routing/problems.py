"""Turn errors into problems: a status, a stable code, what is wrong, and the fix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from pgflow.database.connect import connection_error
from pgflow.database.sqlstate import translate
from pgflow.errors import (
    ConfigError,
    Conflict,
    DatabaseError,
    Invalid,
    InvalidValue,
    NotFound,
    PgflowError,
    SchemaError,
    StatementTimeout,
)
from pgflow.logs import Logger
from pgflow.web.routing.page import Problem

__all__ = ["Forbidden", "Refused", "Unauthenticated", "field_errors", "problem_of"]

log = Logger("pgflow.web")

STATUSES: Sequence[tuple[type[PgflowError], int]] = (
    (NotFound, 404),
    (Conflict, 409),
    (Invalid, 422),
    (StatementTimeout, 504),
    (SchemaError, 503),
    (DatabaseError, 503),
    (ConfigError, 500),
)
INSUFFICIENT_PRIVILEGE = "42501"


class Refused(PgflowError):
    """A request that another site may have made."""

    code = "refused"


class Forbidden(PgflowError):
    """A person without the right."""

    code = "forbidden"


class Unauthenticated(PgflowError):
    """A request without a known user."""

    code = "unauthenticated"

    def __init__(self, message: str, *, challenge: str | None = None, login: str | None = None) -> None:
        super().__init__(message)
        self.challenge = challenge
        self.login = login


def problem_of(error: Exception) -> tuple[int, Problem]:
    """Return the status and the problem of an error. One that is a bug is logged, and not shown."""
    match error:
        case Refused() | Forbidden():
            return 403, _problem(error)
        case Unauthenticated():
            return 401 if error.challenge else 403, _problem(error)
        case HTTPException():
            return error.status_code, Problem(code="http", message=error.detail)
        case ValidationError():
            return 422, _problem(InvalidValue(sentence(error)))
        case psycopg.Error():
            return problem_of(_of_database(error))
        case PgflowError():
            status = next((status for kind, status in STATUSES if isinstance(error, kind)), 500)
            return status, _problem(error)
    log.error("a request failed", exc_info=error)
    return 500, Problem(code="bug", message="The dashboard has failed.", hint="Its log has the traceback.")


def _problem(error: PgflowError) -> Problem:
    return Problem(code=error.code, message=str(error), hint=error.hint)


def _of_database(error: psycopg.Error) -> Exception:
    if error.sqlstate == INSUFFICIENT_PRIVILEGE:
        return Forbidden(
            f"the database role of this dashboard lacks a right: {error.diag.message_primary}",
            hint="Grant it: pgflow roles --dashboard ROLE, and --operator ROLE for actions.",
        )
    if (translated := translate(error)) is not None:
        return translated
    if isinstance(error, psycopg.OperationalError):
        return connection_error(error, "the database")
    message = error.diag.message_primary or str(error)
    return DatabaseError(f"PostgreSQL error: {message}", hint=error.diag.message_hint)


def field_errors(error: ValidationError) -> dict[str, str]:
    """Return the message of each field by its name, such as "payload.amount"."""
    return {".".join(map(str, each["loc"])): _capital(each["msg"]) for each in error.errors(include_url=False)}


def sentence(error: ValidationError) -> str:
    """Return all messages in one line."""
    return "; ".join(f"{name or 'the body'}: {message}" for name, message in field_errors(error).items())


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def describe(problem: Problem) -> dict[str, Any]:
    """Return a problem as the API sends it."""
    return {"problem": problem.model_dump()}
