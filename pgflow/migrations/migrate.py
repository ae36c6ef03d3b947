"""Bring a schema up to this version of pgflow, tell how far it is, or hand the SQL over to another migration tool.

Each migration is one transaction, in which its line in the ledger comes first. Two who migrate at once are kept apart
by an advisory lock, and where a database has none by the ledger's primary key (graphile-worker's idea). After the last
one the functions of sql/functions/ are put in place, in the same transaction, so that no older function ever meets a
newer table. Locks on tables are waited for a moment only, and asked for again later: a migration in the queue for a
lock would hold up everybody behind it.

One that breaks older code is announced first: its line stands in the ledger, not applied yet. Workers of an older
pgflow see that with their next sweep, finish what they run and end; none can start any more. Only when none is left is
it applied, under a lock that lets none in. If that does not come about, the announcement is taken back, and all is as
before. (graphile-worker's workers end so, too, on a newer breaking migration; here the migration waits for it.)
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, LiteralString

import psycopg
from psycopg import sql as compose
from psycopg.pq import TransactionStatus
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from pgflow.database import files
from pgflow.database.encoding import require_utf8
from pgflow.database.files import SCHEMA
from pgflow.database.migration_files import FUNCTIONS, Migration, functions, migrations
from pgflow.database.statement import arun, arun_all, run, run_all
from pgflow.database.transaction_status import is_idle
from pgflow.errors import SchemaError, SchemaOutdated
from pgflow.migrations.schema import Status, command, derive_status, lost, moved, planned, privileges_error, renamed
from pgflow.migrations.script import UNCHECKED, create_schema, functions_line, ledger, planned_line, sql
from pgflow.store import migration, role, worker
from pgflow.store.migration import ANNOUNCED, Applied
from pgflow.store.worker import Alive

__all__ = [
    "PATIENCE",
    "Alive",
    "Applied",
    "Status",
    "acheck",
    "aexamine",
    "astatus",
    "check",
    "examine",
    "ledger",
    "sql",
    "status",
    "up",
]

PATIENCE = timedelta(seconds=60)
# Nobody may have to stand behind us for more than 200 ms: for so many of them we wait for the tables, in the rest we do
# what is to be done. Local to a transaction.
LIMITS: LiteralString = """
set local lock_timeout = 100;
set local statement_timeout = 0;
set local idle_in_transaction_session_timeout = 0;
"""
# And for the one view among the functions, while we have the tables.
LEFT: LiteralString = "set local lock_timeout = 50"


class Busy(Exception):
    """Somebody else migrates this schema."""


class Inhabited(Exception):
    """Workers are alive whose code the next migration would break."""

    def __init__(self, workers: Sequence[Alive]) -> None:
        super().__init__(", ".join(map(str, workers)))


COMMENT = re.compile(r"--[^\n]*")
# Of what a migration makes: its line in the ledger was lost.
THERE_ALREADY = (
    psycopg.errors.DuplicateTable,
    psycopg.errors.DuplicateColumn,
    psycopg.errors.DuplicateFunction,
    psycopg.errors.DuplicateObject,
)
# Where two who create the schema, or enter the same line, at once get a unique violation.
CONTESTED = frozenset({"migrations", "pg_namespace", "pg_class", "pg_proc", "pg_type"})


def status(conn: psycopg.Connection[Any], schema: str = SCHEMA) -> Status:
    """Return how far a schema is; reads only.

    Raises `SchemaForeign` when it holds somebody else's tables, `SchemaMissing` when it was renamed, `RowSecurityError`
    when rows are hidden from us, `SchemaError` when an applied migration was changed, or when the ledger that tells of
    them was lost.
    """
    standing = run(conn, migration.inspect(schema))
    if standing.engine:
        _require_all_rows(run(conn, role.find_row_security(schema, ())))
    lines = run(conn, migration.applied(schema)) if standing.ours else ()
    drift = run(conn, role.find_drift(schema)) if standing.engine else ()
    return derive_status(schema, standing, lines, migrations(), functions(schema), drift)


async def astatus(conn: psycopg.AsyncConnection[Any], schema: str = SCHEMA) -> Status:
    """`status`, async."""
    standing = await arun(conn, migration.inspect(schema))
    if standing.engine:
        _require_all_rows(await arun(conn, role.find_row_security(schema, ())))
    lines = await arun(conn, migration.applied(schema)) if standing.ours else ()
    drift = await arun(conn, role.find_drift(schema)) if standing.engine else ()
    return derive_status(schema, standing, lines, migrations(), functions(schema), drift)


def check(conn: psycopg.Connection[Any], schema: str = SCHEMA) -> None:
    """Refuse a schema on which this code cannot work, with the command that mends it.

    Raises `SchemaMissing`, `SchemaOutdated`, `SchemaTooNew`, `SchemaForeign` or `SchemaError`, and `RowSecurityError`
    when rows are hidden from us. A newer schema is fine unless one of its migrations says that it breaks older code.
    Of a role that may call the functions but not read the ledger, only the latter two are known.
    """
    if examine(conn, schema):
        status(conn, schema).require_usable()


async def acheck(conn: psycopg.AsyncConnection[Any], schema: str = SCHEMA) -> None:
    """`check`, async."""
    if await aexamine(conn, schema):
        (await astatus(conn, schema)).require_usable()


def examine(conn: psycopg.Connection[Any], schema: str = SCHEMA) -> bool:
    """Refuse a schema of which calls would silently use other tables, or see no rows; in one round trip.

    Raises `SchemaOutdated` or `SchemaMissing` where it was renamed, `RowSecurityError` when rows are hidden from us.
    Returns whether we may read the ledger, or there is none.
    """
    standing, found = run_all(conn, [migration.inspect(schema), role.find_row_security(schema, ())])
    return _examined(schema, standing, found)


async def aexamine(conn: psycopg.AsyncConnection[Any], schema: str = SCHEMA) -> bool:
    """`examine`, async."""
    standing, found = await arun_all(conn, [migration.inspect(schema), role.find_row_security(schema, ())])
    return _examined(schema, standing, found)


def up(
    conn: psycopg.Connection[Any],
    schema: str = SCHEMA,
    dry_run: bool = False,
    *,
    to: int | None = None,
    patience: timedelta = PATIENCE,
    tell: Callable[[Sequence[Alive]], None] = lambda workers: None,
) -> list[Applied]:
    """Apply what is pending and return it; empty when somebody else was first, or nothing is to do.

    The schema is created when it is missing. Safe to run at any time, by several at once and under load: for each
    migration it waits up to `patience` for locks, for others who migrate and, before one that breaks older code, for
    the workers that run now to end; never in anybody's way. `tell` is called again and again with those workers.
    `dry_run` returns what would be applied and writes nothing. `conn` must not be in a transaction. What was applied
    before an error stays applied. `to` is the last migration to apply, for going step by step; this code runs on the
    newest only. `status(conn).version` says how far a schema is.

    Raises what `status` raises, `DatabaseError` in a database whose encoding is not UTF8, `SchemaTooNew`, `ConfigError`
    for a `to` that does not exist, and `SchemaError` for one that is behind the schema, or when a lock was not to be
    had in time, or a worker did not end.

        up(connect(dsn, "migrate"))    # [Applied(1, "engine", …), Applied(0, "functions", …)]
    """
    require_utf8(conn)
    with _autocommit(conn):
        before = status(conn, schema)
        before.require_migratable()
        before.require_reachable(to)
        before = before.toward(to)
        if dry_run:
            return planned(before, functions(schema))
        done: list[Applied] = []
        if before.up_to_date:
            return done
        patiently = Retrying(
            retry=retry_if_exception(_is_passing),
            wait=wait_random_exponential(multiplier=0.05, max=1),
            stop=stop_after_delay(patience),
            retry_error_callback=_give_up(schema, patience),
        )
        try:
            while patiently(_advance, conn, schema, to, done, patiently.copy(), tell):
                pass
        except BaseException:
            _withdraw(conn, schema)
            raise
        return done


def _advance(
    conn: psycopg.Connection[Any],
    schema: str,
    to: int | None,
    done: list[Applied],
    patiently: Retrying,
    tell: Callable[[Sequence[Alive]], None],
) -> bool:
    """Go one step: announce the next migration or apply it, after the last one the functions, too.

    Returns whether there may be more to do.
    """
    with conn.transaction():
        conn.execute(LIMITS)
        if not run(conn, migration.lock_transaction(schema)):
            raise Busy
        now = status(conn, schema)  # somebody else may have been faster
        now.require_migratable()
        now = now.toward(to)
        if now.up_to_date:
            return False
        following = now.pending[0] if now.pending else None
        if following is not None and following.breaking and now.applied:
            if not now.announced:
                _announce(conn, now, following)
                return True
            _require_nobody(conn, schema, tell)
        applied = []
        if following is None or following.transactional:
            applied = list(_apply(conn, now, following))
    if following is not None and not following.transactional:
        applied = _apply_outside(conn, schema, following, patiently)
    done += applied
    return True


def _announce(conn: psycopg.Connection[Any], now: Status, following: Migration) -> None:
    line = Applied(following.version, following.name, ANNOUNCED, breaking=True)
    run(conn, migration.record(now.schema, line))
    if now.functions is not None:
        run(conn, worker.wake(now.schema, {worker.SWEEP}))


def _require_nobody(conn: psycopg.Connection[Any], schema: str, tell: Callable[[Sequence[Alive]], None]) -> None:
    """Raise `Inhabited` while a worker is alive; then see to it that none comes before the transaction ends.

    Nor may one that is no more have left locks behind.
    """
    there = run(conn, worker.alive(schema))
    if not there:
        run(conn, worker.bar(schema))
        there = run(conn, worker.alive(schema))
    if there:
        tell(there)
        raise Inhabited(there)
    run(conn, worker.oust(schema))


def _withdraw(conn: psycopg.Connection[Any], schema: str) -> None:
    """Take back what is announced, so that older workers may come back; unless somebody else is about to apply it."""
    with suppress(psycopg.Error, SchemaError), conn.transaction():
        if run(conn, migration.lock_transaction(schema)) and (line := status(conn, schema).announced):
            run(conn, migration.withdraw(schema, line.version))


def _apply(conn: psycopg.Connection[Any], now: Status, following: Migration | None) -> Iterator[Applied]:
    schema = now.schema
    if following is not None:
        if not now.applied:
            _found(conn, schema)
        if now.announced:
            run(conn, migration.withdraw(schema, following.version))  # its line now says that it is applied
        yield run(conn, migration.record(schema, planned_line(following)))
        _lock(conn, schema, following.alters)
        try:
            _execute(conn, files.load(following.path, schema))
        except THERE_ALREADY as error:
            said = error.diag.message_primary
            raise lost(schema, f"holds what {following.version:04} {following.name} was to make: {said}") from error
    if len(now.pending) <= 1 and now.stale:
        line = functions_line(schema)
        renewed = run(conn, migration.upsert(schema, line))
        conn.execute(f"set local {UNCHECKED}")
        conn.execute(LEFT)
        for path in functions().paths:
            _execute(conn, files.load(path, schema))
        yield renewed or line  # the line may be right where the functions are not, after a restore
    if list(_restore(conn, schema)):
        yield Applied(FUNCTIONS, "rights", functions(schema).checksum, breaking=False)


def _restore(conn: psycopg.Connection[Any], schema: str) -> Iterator[role.PrivilegeDrift]:
    """Restore the rights that the files give: default privileges, and a restore without grants, leave others."""
    for each in run(conn, role.find_drift(schema)):
        try:
            _execute(conn, each.repair)
        except psycopg.errors.InsufficientPrivilege as error:
            raise privileges_error([each]) from error
        yield each
    if left := run(conn, role.find_drift(schema)):
        raise privileges_error(left)


def _apply_outside(
    conn: psycopg.Connection[Any], schema: str, following: Migration, patiently: Retrying
) -> list[Applied]:
    """Run statements that refuse transactions, entering them only afterwards: until then a second run repeats them."""
    if not run(conn, migration.lock_session(schema)):
        raise Busy
    try:
        now = status(conn, schema)
        if following not in now.pending:
            return []
        conn.execute("set statement_timeout = 0")
        conn.execute("set lock_timeout = 0")
        for statement in _statements(files.load(following.path, schema)):
            try:
                if _is_concurrent(statement):
                    _execute(conn, statement)
                else:
                    patiently(_execute_limited, conn, statement)
            except psycopg.errors.CheckViolation as error:
                raise _broken(error) from error
        return [run(conn, migration.record(schema, planned_line(following)))]
    finally:
        if is_idle(conn):
            conn.execute("reset statement_timeout")
            conn.execute("reset lock_timeout")
            run(conn, migration.unlock_session(schema))


def _lock(conn: psycopg.Connection[Any], schema: str, tables: Sequence[str]) -> None:
    """Have all of them within the limit, or none: who waits behind us for the first one waits for the last one, too."""
    if not tables:
        return
    names = compose.SQL(", ").join(compose.Identifier(schema, table) for table in tables)
    conn.execute("set local statement_timeout = 100")
    try:
        conn.execute(compose.SQL("lock table {} in access exclusive mode").format(names))
    except psycopg.errors.QueryCanceled as error:
        raise psycopg.errors.LockNotAvailable(str(error)) from error
    conn.execute("set local statement_timeout = 0")


def _found(conn: psycopg.Connection[Any], schema: str) -> None:
    # "if not exists" asks for the right to create schemas even when there is nothing to create.
    standing = run(conn, migration.inspect(schema))
    if standing.shared:
        raise SchemaError(
            f'everybody may create objects in schema "{schema}", and so put them in the place of pgflow\'s',
            hint=f'revoke create on schema "{schema}" from public, or take another: --schema NAME',
        )
    if not standing.present:
        conn.execute(create_schema(schema))
    run(conn, migration.create_table(schema))
    _require_all_rows(run(conn, role.find_row_security(schema, ())))  # an event trigger may have switched it on


def _execute(conn: psycopg.Connection[Any], text: str) -> None:
    """Run a file as it is: several statements, no placeholders."""
    conn.execute(text, prepare=False)


def _broken(error: psycopg.errors.CheckViolation) -> SchemaError:
    """Return what says which rows do not keep a limit that is new."""
    table = f"{error.diag.schema_name}.{error.diag.table_name}"
    return SchemaError(
        f"some rows of {table} do not keep the limit {error.diag.constraint_name}",
        hint=f"See what it asks for (\\d {table} in psql), mend or delete those rows, and run it again.",
    )


def _execute_limited(conn: psycopg.Connection[Any], text: str) -> None:
    with conn.transaction():
        conn.execute(LIMITS)
        _execute(conn, text)


def _statements(text: str) -> list[str]:
    """The statements of a file that holds more than one and no function: each ends with its line."""
    return [each for each in re.split(r";[^\S\n]*(?:--[^\n]*)?\n", text) if each.strip()]


def _is_concurrent(statement: str) -> bool:
    """Whether a statement does its waiting in nobody's way."""
    return " concurrently" in COMMENT.sub("", statement)


def _is_passing(error: BaseException) -> bool:
    match error:
        case Busy() | Inhabited() | psycopg.errors.LockNotAvailable() | psycopg.errors.DeadlockDetected():
            return True
        case psycopg.errors.UniqueViolation():
            return error.diag.table_name in CONTESTED
        case _:
            return False


def _require_all_rows(found: Sequence[role.RowSecurity]) -> None:
    """Raise `RowSecurityError` where row-level security holds for us, unless policies let every row pass."""
    if hidden := [each for each in found if each.strict or not each.permitted]:
        raise role.row_security_error(hidden)


def _examined(schema: str, standing: migration.SchemaInfo, found: Sequence[role.RowSecurity]) -> bool:
    if standing.moved and not standing.engine:
        raise moved(schema, standing.moved)
    _require_all_rows(found)
    if standing.made_for is not None and standing.made_for != schema:
        raise SchemaOutdated(renamed(schema, standing.made_for), hint=command(schema))
    return standing.readable or not standing.ours


@contextmanager
def _autocommit(conn: psycopg.Connection[Any]) -> Iterator[None]:
    if conn.info.transaction_status != TransactionStatus.IDLE:
        raise ValueError("migrating needs a connection that is open and outside a transaction")
    before = conn.autocommit
    conn.autocommit = True
    try:
        yield
    finally:
        if not conn.closed:
            conn.autocommit = before


def _give_up(schema: str, patience: timedelta) -> Any:
    def give_up(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        hint = "Nothing is half done; run it again."
        match error:
            case Busy():
                why = "somebody else is migrating it"
            case Inhabited():
                why = f"what comes next breaks the code of workers that have not ended: {error}"
                hint = "Stop them, and run it again. Nothing is half done, and workers may start."
            case _:
                why = f"a lock was not to be had ({error})"
        raise SchemaError(
            f'schema "{schema}" could not be migrated within {patience.total_seconds():.0f} s: {why}', hint=hint
        ) from error

    return give_up
