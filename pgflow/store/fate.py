"""Say of an error what it means for who met it: may it pass, was anything written all the same, is the schema ours?

By SQLSTATE, and by none: where a connection is lost, psycopg knows no code (Oban and River learned to look at the
connection first, too).
"""

import psycopg

from pgflow.errors import SchemaError, Unreachable

__all__ = ["is_canceled", "is_estranged", "is_passing", "is_unknown"]

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
    "XX",  # internal errors
)


def is_passing(error: BaseException) -> bool:
    """Whether what failed may succeed when it is sent again: after a lost connection, a restart, a deadlock.

    False for what is wrong with the statement itself, such as a constraint or a right that it lacks.
    """
    return is_unknown(error) or isinstance(error, Unreachable) or _code(error).startswith(ROLLED_BACK)


def is_canceled(error: BaseException) -> bool:
    """Whether the server canceled the statement. Sent again, it would most likely take as long again."""
    return _code(error) == CANCELED


def is_unknown(error: BaseException) -> bool:
    """Whether the transaction that met `error` may have been committed: it was sent, and the answer did not come."""
    if not isinstance(error, psycopg.OperationalError | psycopg.InternalError | psycopg.InterfaceError):
        return False
    return not _code(error) or _code(error).startswith(SEVERED)


def is_estranged(error: BaseException) -> bool:
    """Whether the schema may be one that this code was not made for: then it is worth a look (`migrate.check`).

    Nothing that our statements say should be wrong in itself, on a schema of ours. A lack of rights speaks for itself.
    """
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return False
    return isinstance(error, SchemaError) or (isinstance(error, psycopg.Error) and not is_passing(error))


def _code(error: BaseException) -> str:
    return getattr(error, "sqlstate", None) or ""
