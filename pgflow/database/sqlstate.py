"""Map the SQLSTATE of a PostgreSQL error to the exception in `pgflow.errors`.

This is the only module that knows the codes that sql/functions raises. (Domain errors as SQLSTATEs of their own class:
an idea of absurd.)
"""

import re
from collections.abc import Mapping

import psycopg

from pgflow import errors

__all__ = ["ERRORS_BY_SQLSTATE", "IDENTITY", "MIGRATE_HINT", "primary_message", "quotes_values", "translate"]

ERRORS_BY_SQLSTATE: Mapping[str, type[errors.PgflowError]] = {
    "PF001": errors.UnknownWorkflow,
    "PF002": errors.AlreadyRunning,
    "PF003": errors.InstanceNotFound,
    "PF004": errors.UndeclaredEvent,
    "PF005": errors.NotActive,
    "PF006": errors.InvalidPayload,
    "PF007": errors.AmbiguousSignal,
    "PF008": errors.InvalidValue,
    "PF009": errors.NotRetryable,
    "PF010": errors.UnknownStep,
    "PF011": errors.GraphChanged,
    "PF012": errors.Conflict,
    "PF013": errors.AlreadyDone,
    "PF014": errors.KeyReused,
    "PF015": errors.AmbiguousId,
    "PF016": errors.UnknownTask,
    "PF017": errors.JobNotFound,
    "PF018": errors.AlreadyEnqueued,
    "PF019": errors.AlreadyStarted,
    "PF020": errors.UnknownQueue,
    "PF030": errors.UnknownSchedule,
    "PF031": errors.ScheduleConflict,
}
ALREADY_ENQUEUED = "PF018"  # the detail is the id of the job that has the key
MISSING = frozenset({"3F000", "42P01", "42883"})  # no such schema, table, function
MIGRATE_HINT = "Run: pgflow migrate"
CHECK_VIOLATION = "23514"
NOT_NULL_VIOLATION = "23502"
UNIQUE_VIOLATION = "23505"
SEQUENCE_EXHAUSTED = "2200H"
# The identity columns of the migrations, by table. (`step_results.seq` has no unique index that could be violated.)
IDENTITY: Mapping[str, str] = {
    "instances": "run",
    "jobs": "id",
    "signals": "id",
    "scheduled_signals": "id",
    "workers": "id",
}
ALSO_IN: Mapping[str, tuple[str, ...]] = {"jobs": ("task_results",)}  # where else the values of a column are in use
# The size constraints of the migrations, each named after its column.
LIMIT = re.compile(
    r"(?P<table>instances|(?:step|task)_results|jobs|signals|scheduled_signals)_(?P<column>[a-z]+)_limit"
)

# A hint for people; pgflow never runs it.
REPAIR = (
    "As the owner of the table, run: select setval(pg_get_serial_sequence('{table}', '{column}'), "
    "{highest}). pgflow doctor finds every such sequence."
)
HIGHEST = "(select max({column}) from {table})"


def primary_message(error: psycopg.Error) -> str:
    """Return the database's message in one line, without its details, which quote values.

    primary_message(error)    # 'new row for relation "orders" violates check constraint "orders_total_check"'
    """
    text = error.diag.message_primary or str(error)
    return " ".join(text.split()) or type(error).__name__


def quotes_values(error: psycopg.Error) -> bool:
    """Return whether the error quotes the rejected row, which must not appear in a traceback."""
    return error.sqlstate == CHECK_VIOLATION


def translate(error: psycopg.Error) -> errors.PgflowError | None:
    """Return the exception to raise instead of `error`, None to raise it unchanged.

    The codes above map to their exceptions, with the database's message and hint; a missing schema, table or function
    to `SchemaMissing`, a value over the limit of its column to `InvalidPayload`, an identity column without a new value
    to `SequenceError`. None for all other errors, in particular those that a retry may resolve.

        translate(error)    # AlreadyRunning("OrderFlow 'orderid::abc' is already running", hint="Wait until …")
    """
    code = error.sqlstate or ""
    message = error.diag.message_primary or str(error)
    if code == ALREADY_ENQUEUED:
        detail = error.diag.message_detail
        return errors.AlreadyEnqueued(message, hint=error.diag.message_hint, job=int(detail) if detail else None)
    if code in ERRORS_BY_SQLSTATE:
        return ERRORS_BY_SQLSTATE[code](message, hint=error.diag.message_hint)
    if code == CHECK_VIOLATION and (limit := LIMIT.fullmatch(error.diag.constraint_name or "")):
        where = f"{limit['column']} of {limit['table']}"
        hint = "Keep large data elsewhere and pass a reference to it."
        return errors.InvalidPayload(f"a value is over the limit that the database has for {where}", hint=hint)
    if (sequence_error := _sequence_error(error)) is not None:
        return sequence_error
    if code in MISSING:
        return errors.SchemaMissing(
            f"pgflow is not installed in this database, or only in part: {message}", hint=MIGRATE_HINT
        )
    return None


def _sequence_error(error: psycopg.Error) -> errors.SequenceError | None:
    """Return the exception for an identity column without a new value, None for any other error."""
    diag = error.diag
    if error.sqlstate == SEQUENCE_EXHAUSTED:
        return errors.SequenceError(
            f"a sequence is exhausted: {primary_message(error)}",
            hint="Set it to the highest value in use; pgflow doctor prints the statement.",
        )
    column = IDENTITY.get(diag.table_name or "")
    if column is None or diag.schema_name is None:
        return None
    table = f"{diag.schema_name}.{diag.table_name}"
    if error.sqlstate == UNIQUE_VIOLATION and diag.constraint_name == f"{diag.table_name}_pkey":
        return errors.SequenceError(
            f"the sequence of {table}.{column} is behind its table: it returned a value that is in use",
            hint=REPAIR.format(table=table, column=column, highest=_highest(diag.schema_name, diag.table_name, column)),
        )
    if error.sqlstate == NOT_NULL_VIOLATION and diag.column_name == column:
        return errors.SequenceError(
            f"{table}.{column} has no sequence",
            hint=f"As the owner of the table, run: alter table {table} alter {column} add generated always as "
            f"identity; then set it to the highest value in use, with the statement that pgflow doctor prints.",
        )
    return None


def _highest(schema: str, table: str | None, column: str) -> str:
    """Return an expression for the highest value in use; the ids of ended tasks are those of their jobs."""
    used = [HIGHEST.format(column=column, table=f"{schema}.{each}") for each in (table, *ALSO_IN.get(table or "", ()))]
    return used[0] if len(used) == 1 else f"greatest({', '.join(used)})"
