"""Say of an error what it means for who met it: may it pass, was anything written all the same, is the schema ours?

By SQLSTATE, and by none: where a connection is lost, psycopg knows no code (Oban and River learned to look at the
connection first, too).
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

CANCELED = "57014"  # query canceled: at the statement's timeout, or by hand
# Classes of SQLSTATE. The server's answer came, so that nothing was written, and the same call may succeed by and by.
ROLLED_BACK = (
    "40",  # transaction rollback: serialization failure, deadlock
    "53",  # insufficient resources: connections, memory, disk
    "55",  # not in the prerequisite state: a lock that was not to be had
    CANCELED,
    "25006",  # read-only transaction: this was the primary
)
# The server, or something in between, ended the session; the commit may have been through by then.
SEVERED = (
    "08",  # connection exceptions
    "57P",  # operator intervention: a shutdown, or a session that was ended
    "58",  # system errors
    "25P03",  # idle_in_transaction_session_timeout; not 25P02, which is the caller's: it went on after an error
    "25P04",  # transaction_timeout
    "XX000",  # internal errors
)
# Raised about a value, whatever the state of the database: a data exception, a program limit exceeded, a value that a
# CHECK or NOT NULL constraint refuses.
DATA = ("22", "54", "23502", "23514")
SEQUENCE_EXHAUSTED = "2200H"  # of class 22, but no value of the statement's is at fault
# A second result for a step of one run: the rows of that instance contradict each other.
RESULT_KEY = "step_results_pkey"
# Raised about single rows, by what the database has on its tables: constraints, triggers and the routines these call,
# a damaged index page. Other rows of the same statement may be accepted.
ROW = ("09", "21", "23", "27", "38", "39", "44", "P0", "XX001", "XX002", SEQUENCE_EXHAUSTED)
CONTENTION = ("40", "55P03", "57014")  # deadlock, serialization failure, lock not available, statement timeout
# In the context of an error that was raised in a trigger's function. It names the language in every translation.
ROUTINE = "PL/"


def is_data_error(error: BaseException) -> bool:
    """Whether `error` is about a value of one instance that can never be stored: that instance has to fail.

    Workers ask this, and `is_row_error`, about a settle. Everything else is the database's fault, not the step's: the
    result is kept, and recorded when the database has been repaired.

        is_data_error(psycopg.errors.UntranslatableCharacter())    # True: an output that holds \\u0000
        is_data_error(psycopg.errors.ForeignKeyViolation())        # False: the row that it refers to may come
    """
    if isinstance(error, InvalidPayload):
        return True
    if not isinstance(error, psycopg.Error) or _is_of_trigger(error):
        return False
    if isinstance(error, psycopg.errors.UniqueViolation):
        return error.diag.constraint_name == RESULT_KEY
    code = _code(error)
    if not code:
        return isinstance(error, psycopg.DataError)  # psycopg could not send the value
    return code.startswith(DATA) and code != SEQUENCE_EXHAUSTED


def is_row_error(error: BaseException) -> bool:
    """Whether the database refuses single rows, through no fault of a step: the others of a batch may be accepted.

    is_row_error(SequenceError("…"))                          # True: only what inserts into that table fails
    is_row_error(psycopg.errors.InsufficientPrivilege())      # False: no statement succeeds
    """
    if isinstance(error, SequenceError):
        return True
    if not isinstance(error, psycopg.Error) or is_data_error(error) or is_transient(error):
        return False
    return _is_of_trigger(error) or _code(error).startswith(ROW)


def is_contention(error: BaseException) -> bool:
    """Whether `error` comes of what other sessions do: a deadlock, a lock that was not available in time."""
    return _code(error).startswith(CONTENTION)


def is_transient(error: BaseException) -> bool:
    """Whether what failed may succeed when it is sent again: after a lost connection, a restart, a deadlock.

    False for what is wrong with the statement itself, such as a constraint or a right that it lacks.
    """
    return is_outcome_unknown(error) or isinstance(error, Unreachable) or _code(error).startswith(ROLLED_BACK)


def is_canceled(error: BaseException) -> bool:
    """Whether the server canceled the statement. Sent again, it would most likely take as long again."""
    return _code(error) == CANCELED


def is_outcome_unknown(error: BaseException) -> bool:
    """Whether the transaction that met `error` may have been committed: it was sent, and the answer did not come."""
    if not isinstance(error, psycopg.OperationalError | psycopg.InternalError | psycopg.InterfaceError):
        return False
    return not _code(error) or _code(error).startswith(SEVERED)


def may_be_schema_mismatch(error: BaseException) -> bool:
    """Whether the schema may be one that this code was not made for: then it is worth a look (`migrate.check`).

    Nothing that our statements say should be wrong in itself, on a schema of ours. What row-level security refuses has
    the SQLSTATE of any lack of rights.
    """
    return isinstance(error, SchemaError) or (isinstance(error, psycopg.Error) and not is_transient(error))


def _is_of_trigger(error: psycopg.Error) -> bool:
    return ROUTINE in (error.diag.context or "")


def _code(error: BaseException) -> str:
    return getattr(error, "sqlstate", None) or ""
