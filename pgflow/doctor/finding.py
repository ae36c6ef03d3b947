"""What a check receives and returns, and how it is run: a check never aborts the run."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, LiteralString

import psycopg

from pgflow.app import Pgflow
from pgflow.database.connect import Connection
from pgflow.errors import PgflowError, SchemaError, SchemaMissing

__all__ = [
    "NOTE",
    "OK",
    "PROBLEM",
    "Check",
    "Finding",
    "Result",
    "Target",
    "capped",
    "duration",
    "note",
    "ok",
    "problem",
]

OK = "ok"
NOTE = "note"
PROBLEM = "problem"
COUNT_LIMIT = 1000  # queries stop counting one row later
# Local to each check's transaction, because a pooler would pass session settings on; `database.connect` explains them.
LIMITS: LiteralString = """
set local statement_timeout = 5000;
set local lock_timeout = 1000;
set local jit = off;
"""


@dataclass(frozen=True, slots=True)
class Target:
    """What is examined: an open connection, its DSN, the schema, and the app if there is one.

    `uses_pooler` is whether a pooler was declared.
    """

    conn: Connection
    dsn: str
    schema: str
    app: Pgflow | None = None
    uses_pooler: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """One result of a check: `state` is ok, note or problem; `fix` is the command or setting to apply next."""

    state: str
    what: str
    fix: str | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """A check's name, its result, and why the result matters."""

    check: str
    state: str
    what: str
    why: str
    fix: str | None

    def record(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Check:
    """A named check. `look` yields its results (nothing where it does not apply); `why` is why all of them matter.

    `is_in_transaction` is False for a check that opens its own connections. `is_required` is whether the examination
    ends when the schema is missing or unusable.
    """

    name: str
    why: str
    look: Callable[[Target], Iterator[Result]]
    is_in_transaction: bool = True
    is_required: bool = False

    def run(self, target: Target) -> list[Finding]:
        """Run it read-only. A missing privilege, a timeout or another error of the check becomes a note.

        Raises `SchemaError` for a required check, and `psycopg.Error` when the connection is lost.
        """
        try:
            results = list(self._look(target))
        except psycopg.errors.InsufficientPrivilege as error:
            role = target.conn.info.user or "this role"
            fix = f'let it read: grant usage on schema "{target.schema}", and select on its tables'
            results = [note(f"{role} may not read this: {error.diag.message_primary}", fix)]
        except (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable) as error:
            results = [note(f"could not be checked: {error.diag.message_primary}", "repeat it when the load is lower")]
        except SchemaMissing:
            if self.is_required:
                raise
            results = [note("the table to check is missing", "pgflow migrate")]
        except (psycopg.Error, PgflowError) as error:
            if target.conn.closed or (self.is_required and isinstance(error, SchemaError)):
                raise
            results = [note(f"could not be checked: {error}")]
        return [Finding(self.name, each.state, each.what, self.why, each.fix) for each in results]

    def _look(self, target: Target) -> Iterator[Result]:
        if not self.is_in_transaction:
            yield from self.look(target)
            return
        with target.conn.transaction():
            target.conn.execute(LIMITS)
            yield from self.look(target)


def ok(what: str) -> Result:
    """Return a result that needs no attention."""
    return Result(OK, what)


def note(what: str, fix: str | None = None) -> Result:
    """Return a result worth knowing; the exit code stays 0."""
    return Result(NOTE, what, fix)


def problem(what: str, fix: str) -> Result:
    """Return a result that must be fixed."""
    return Result(PROBLEM, what, fix)


def duration(seconds: float | None) -> str:
    """Return a duration for people: "12 s", "3 min", "5 h", "2 days"; "ever" for None."""
    if seconds is None:
        return "ever"
    for size, unit in ((172_800, "days"), (7200, "h"), (120, "min")):
        if seconds >= size:
            return f"{seconds // {'days': 86_400, 'h': 3600, 'min': 60}[unit]:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def capped(count: int, noun: str) -> str:
    """Return a count with its noun: "1 job", "12 jobs", "1000+ jobs"."""
    return f"{COUNT_LIMIT}+ {noun}s" if count > COUNT_LIMIT else f"{count} {noun}{'' if count == 1 else 's'}"
