"""Say what a check is, what it finds, and whom it looks at; and run it so that nothing it meets is an end."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, LiteralString

import psycopg

from pgflow.app import Pgflow
from pgflow.database.connect import Connection
from pgflow.errors import SchemaMissing

__all__ = ["NOTE", "OK", "PROBLEM", "Check", "Finding", "Result", "Target", "capped", "note", "ok", "problem", "span"]

OK = "ok"
NOTE = "note"
PROBLEM = "problem"
MOST = 1000  # beyond this, statements do not count on
# Local to each check's transaction, so that no pooler hands them on; see `database.connect` for what they mean.
LIMITS: LiteralString = """
set local statement_timeout = 5000;
set local lock_timeout = 1000;
set local jit = off;
"""


@dataclass(frozen=True, slots=True)
class Target:
    """What is looked at: an open connection, where it leads, the schema, and the app if one is named.

    `pooler` is whether it has been said that one stands in between.
    """

    conn: Connection
    dsn: str
    schema: str
    app: Pgflow | None = None
    pooler: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """One thing that a check says: `state` is ok, note or problem; `mend` the next command or setting."""

    state: str
    what: str
    mend: str | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """What is told: a check's name, what it says, and why that matters."""

    check: str
    state: str
    what: str
    why: str
    mend: str | None

    def record(self) -> dict[str, Any]:
        """Return it for --json."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Check:
    """One look at a patient. `look` yields what it says, nothing at all being well apart; `why` is true of all of it.

    `is_in_transaction` is False for a check that has connections of its own; without what a check `is_required` looks
    at there is nothing to examine, and `run` raises.
    """

    name: str
    why: str
    look: Callable[[Target], Iterator[Result]]
    is_in_transaction: bool = True
    is_required: bool = False

    def run(self, patient: Target) -> list[Finding]:
        """Look, and write nothing. What the role may not see, or what takes too long, is said and is no error.

        Raises `SchemaMissing` and other kinds of `SchemaError` for a schema that cannot be examined.
        """
        try:
            said = list(self._look(patient))
        except psycopg.errors.InsufficientPrivilege as error:
            who = f"{patient.conn.info.user or 'this role'} may not look"
            mend = f'let it read: grant usage on schema "{patient.schema}", and select on its tables'
            said = [note(f"{who}: {error.diag.message_primary}", mend)]
        except (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable) as error:
            said = [note(f"could not be looked at: {error.diag.message_primary}", "run it again when less is going on")]
        except SchemaMissing:
            if self.is_required:
                raise
            said = [note("the schema lacks what is to be looked at", "pgflow migrate")]
        return [Finding(self.name, each.state, each.what, self.why, each.mend) for each in said]

    def _look(self, patient: Target) -> Iterator[Result]:
        if not self.is_in_transaction:
            yield from self.look(patient)
            return
        with patient.conn.transaction():
            patient.conn.execute(LIMITS)
            yield from self.look(patient)


def ok(what: str) -> Result:
    """Say that it is well."""
    return Result(OK, what)


def note(what: str, mend: str | None = None) -> Result:
    """Say what is worth knowing; the exit code stays 0."""
    return Result(NOTE, what, mend)


def problem(what: str, mend: str) -> Result:
    """Say what must be mended."""
    return Result(PROBLEM, what, mend)


def span(seconds: float | None) -> str:
    """Return a duration as people read it: "12 s", "3 min", "5 h", "2 days"."""
    if seconds is None:
        return "ever"
    for size, unit in ((172_800, "days"), (7200, "h"), (120, "min")):
        if seconds >= size:
            return f"{seconds // {'days': 86_400, 'h': 3600, 'min': 60}[unit]:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def capped(count: int, noun: str) -> str:
    """Return how many: "1 token", "12 tokens", "1000+ tokens"."""
    return f"{MOST}+ {noun}s" if count > MOST else f"{count} {noun}{'' if count == 1 else 's'}"
