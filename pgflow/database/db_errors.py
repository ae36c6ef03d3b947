"""Classify database errors: transient or permanent, outcome unknown, possible schema mismatch, fault of one row.

By SQLSTATE, or its absence: psycopg has none for a lost connection. (Oban and River check the connection first, too.)
"""

import psycopg

from pgflow.errors import InvalidPayload, SchemaError, SequenceError, Unreachable

__all__ = [
    "is_canceled",
    "is_contention",
    "is_data_error",
    "is_outcome_unknown",
    "is_row_error",
    "is_transient",
    "may_be_schema_mismatch",
]

CANCELED = "57014"  # query canceled: statement_timeout, or pg_cancel_backend
# Classes of SQLSTATE. The server reported the error, so nothing was written, and the same call may succeed later.
ROLLED_BACK = (
    "40",  # transaction rollback: serialization failure, deadlock
    "53",  # insufficient resources: connections, memory, disk
    "55",  # object not in prerequisite state: lock not available
    CANCELED,
    "25006",  # read-only transaction: the primary became a standby
)
# The server, or the network, ended the session; the commit may have succeeded before.
CONNECTION_LOST = (
    "08",  # connection exceptions
    "57P",  # operator intervention: a shutdown, a terminated session
    "58",  # system errors
    "25P03",  # idle_in_transaction_session_timeout; not 25P02, the error of a caller that continues after an error
    "25P04",  # transaction_timeout
    "XX000",  # internal errors
)
# Caused by a value, in any state of the database: a data exception, a program limit exceeded, a violated CHECK or NOT
# NULL constraint.
DATA = ("22", "54", "23502", "23514")
SEQUENCE_EXHAUSTED = "2200H"  # of class 22, but not caused by a value of the statement
# A second result for a step of one run: the rows of that instance are inconsistent.
RESULT_KEY = "step_results_pkey"
# Raised for single rows, by objects on the tables: constraints, triggers and the routines they call, a damaged index
# page. Other rows of the same statement may be accepted.
ROW = ("09", "21", "23", "27", "38", "39", "44", "P0", "XX001", "XX002", SEQUENCE_EXHAUSTED)
CONTENTION = ("40", "55P03", "57014")  # deadlock, serialization failure, lock not available, statement timeout
# Part of the context of an error raised in a trigger function: the language, which no translation changes.
ROUTINE = "PL/"


def is_data_error(error: BaseException) -> bool:
    """Return whether a value of one instance can never be stored, so that the instance must fail.

    Workers classify the errors of a settle with this and `is_row_error`. For any other error the database is at fault
    and not the step: the worker keeps the result and records it once the database is repaired.

        is_data_error(psycopg.errors.UntranslatableCharacter())    # True: an output with \\u0000
        is_data_error(psycopg.errors.ForeignKeyViolation())        # False: the referenced row may still be inserted
    """
    if isinstance(error, InvalidPayload):
        return True
    if not isinstance(error, psycopg.Error) or _is_from_trigger(error):
        return False
    if isinstance(error, psycopg.errors.UniqueViolation):
        return error.diag.constraint_name == RESULT_KEY
    code = _code(error)
    if not code:
        return isinstance(error, psycopg.DataError)  # psycopg could not send the value
    return code.startswith(DATA) and code != SEQUENCE_EXHAUSTED


def is_row_error(error: BaseException) -> bool:
    """Return whether the database rejects single rows, through no fault of a step; others of a batch may be accepted.

    is_row_error(SequenceError("…"))                          # True: only inserts into that table fail
    is_row_error(psycopg.errors.InsufficientPrivilege())      # False: every statement fails
    """
    if isinstance(error, SequenceError):
        return True
    if not isinstance(error, psycopg.Error) or is_data_error(error) or is_transient(error):
        return False
    return _is_from_trigger(error) or _code(error).startswith(ROW)


def is_contention(error: BaseException) -> bool:
    """Return whether other sessions caused the error: a deadlock, a lock timeout."""
    return _code(error).startswith(CONTENTION)


def is_transient(error: BaseException) -> bool:
    """Return whether a retry may succeed: after a lost connection, a restart, a deadlock.

    False if the statement itself is at fault, such as a violated constraint or a missing privilege.
    """
    return is_outcome_unknown(error) or isinstance(error, Unreachable) or _code(error).startswith(ROLLED_BACK)


def is_canceled(error: BaseException) -> bool:
    """Return whether the server canceled the statement; a retry would most likely take as long again."""
    return _code(error) == CANCELED


def is_outcome_unknown(error: BaseException) -> bool:
    """Return whether the transaction may have been committed: it was sent, and no answer arrived."""
    if not isinstance(error, psycopg.OperationalError | psycopg.InternalError | psycopg.InterfaceError):
        return False
    return not _code(error) or _code(error).startswith(CONNECTION_LOST)


def may_be_schema_mismatch(error: BaseException) -> bool:
    """Return whether the schema may not match this code, so that the caller should run `migrate.check`.

    Our statements are valid on a matching schema. An error of row-level security has the SQLSTATE of any missing
    privilege.
    """
    return isinstance(error, SchemaError) or (isinstance(error, psycopg.Error) and not is_transient(error))


def _is_from_trigger(error: psycopg.Error) -> bool:
    return ROUTINE in (error.diag.context or "")


def _code(error: BaseException) -> str:
    return getattr(error, "sqlstate", None) or ""
