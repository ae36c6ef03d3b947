"""Bring a schema up to this version of pgflow, and check a schema before it is used.

Each migration is one transaction, which first records it in the table `migrations`. An advisory lock serializes
concurrent migrations; where a database has no advisory locks, the primary key of that table does (an idea of
graphile-worker). The last migration's transaction also installs the functions of sql/functions/, so that no older
function ever runs on newer tables. Locks on tables are waited for only briefly and requested again later: sessions
queue behind a lock request that waits.

A breaking migration is announced first: it is recorded, but not applied. Workers of an older pgflow see that in their
next sweep, drain and end, and none can start. The migration is applied when no worker is left, under a lock that blocks
registration. If workers do not end in time, the announcement is withdrawn and nothing has changed. (graphile-worker's
workers also end on a newer breaking migration; here the migration waits for them.)
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import psycopg
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

from pgflow.database.encoding import require_utf8
from pgflow.database.files import SCHEMA
from pgflow.database.migration_files import Migration, functions, migrations
from pgflow.database.statement import arun, arun_all, run, run_all
from pgflow.database.transaction_status import is_idle
from pgflow.errors import SchemaError, SchemaOutdated
from pgflow.migrations.apply import LIMITS, apply_in_transaction, apply_outside_transaction, require_all_rows
from pgflow.migrations.schema import (
    Status,
    derive_status,
    migrate_command,
    planned,
    renamed_error,
    wrong_schema_message,
)
from pgflow.store import migration, role, worker
from pgflow.store.migration import ANNOUNCED, Applied
from pgflow.store.notification import SweepRequested
from pgflow.store.worker import Alive

__all__ = ["DEFAULT_TIMEOUT", "acheck", "aexamine", "astatus", "check", "examine", "status", "up"]

DEFAULT_TIMEOUT = timedelta(seconds=60)
# Relations for which two sessions that create the schema, or record a migration, at the same time get a unique
# violation.
CONTENDED = frozenset({"migrations", "pg_namespace", "pg_class", "pg_proc", "pg_type"})


class Busy(Exception):
    """Another session is migrating this schema."""


class WorkersAlive(Exception):
    """Workers are alive whose code the next migration breaks."""

    def __init__(self, workers: Sequence[Alive]) -> None:
        super().__init__(", ".join(map(str, workers)))


def status(conn: psycopg.Connection[Any], schema: str = SCHEMA) -> Status:
    """Return which migrations a schema has; only reads.

    Raises `SchemaForeign` for a schema with other tables than ours, `SchemaMissing` if it was renamed,
    `RowSecurityError` if rows are hidden from us, `SchemaError` if an applied migration was changed or the rows that
    record migrations were lost.
    """
    info = run(conn, migration.inspect(schema))
    if info.engine:
        require_all_rows(run(conn, role.find_row_security(schema, ())))
    recorded = run(conn, migration.applied(schema)) if info.ours else ()
    drift = run(conn, role.find_drift(schema)) if info.engine else ()
    return derive_status(schema, info, recorded, migrations(), functions(schema), drift)


async def astatus(conn: psycopg.AsyncConnection[Any], schema: str = SCHEMA) -> Status:
    """`status`, async."""
    info = await arun(conn, migration.inspect(schema))
    if info.engine:
        require_all_rows(await arun(conn, role.find_row_security(schema, ())))
    recorded = await arun(conn, migration.applied(schema)) if info.ours else ()
    drift = await arun(conn, role.find_drift(schema)) if info.engine else ()
    return derive_status(schema, info, recorded, migrations(), functions(schema), drift)


def check(conn: psycopg.Connection[Any], schema: str = SCHEMA) -> None:
    """Raise an error for a schema on which this code cannot run; its hint is the command that fixes it.

    Raises `SchemaMissing`, `SchemaOutdated`, `SchemaTooNew`, `SchemaForeign` or `SchemaError`, and `RowSecurityError`
    if rows are hidden from us. A newer schema is accepted unless one of its migrations is breaking. For a role that may
    call the functions but not read the table `migrations`, only the checks of `examine` apply.
    """
    if examine(conn, schema):
        status(conn, schema).require_usable()


async def acheck(conn: psycopg.AsyncConnection[Any], schema: str = SCHEMA) -> None:
    """`check`, async."""
    if await aexamine(conn, schema):
        (await astatus(conn, schema)).require_usable()


def examine(conn: psycopg.Connection[Any], schema: str = SCHEMA) -> bool:
    """Raise an error if calls would silently use the tables of another schema or miss rows; one round trip.

    Raises `SchemaOutdated` or `SchemaMissing` if the schema was renamed, `RowSecurityError` if rows are hidden from us.
    Returns whether we may read the table `migrations`, or it does not exist.
    """
    info, secured = run_all(conn, [migration.inspect(schema), role.find_row_security(schema, ())])
    return _examined(schema, info, secured)


async def aexamine(conn: psycopg.AsyncConnection[Any], schema: str = SCHEMA) -> bool:
    """`examine`, async."""
    info, secured = await arun_all(conn, [migration.inspect(schema), role.find_row_security(schema, ())])
    return _examined(schema, info, secured)


def up(
    conn: psycopg.Connection[Any],
    schema: str = SCHEMA,
    dry_run: bool = False,
    *,
    to: int | None = None,
    timeout: timedelta = DEFAULT_TIMEOUT,
    on_wait: Callable[[Sequence[Alive]], None] = lambda workers: None,
) -> list[Applied]:
    """Apply all pending migrations and return them; empty if there are none, or another session was faster.

    Creates the schema if it is missing. Safe at any time, concurrently and under load: for each migration it waits up
    to `timeout` for locks, for other sessions that migrate and, before a breaking one, for the workers alive to end. It
    never blocks other sessions for long. `on_wait` is called repeatedly with those workers. `dry_run` returns the
    migrations without applying them. `conn` must not be in a transaction. Migrations applied before an error stay
    applied. `to` is the last migration to apply, to migrate step by step; this code runs on the newest only.
    `status(conn).version` is the schema's version.

    Raises the errors of `status`, `DatabaseError` in a database whose encoding is not UTF8, `SchemaTooNew`,
    `ConfigError` if migration `to` does not exist, and `SchemaError` if the schema is past it, a lock was not available
    in time, or a worker did not end.

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
        retrying = Retrying(
            retry=retry_if_exception(_is_transient),
            wait=wait_random_exponential(multiplier=0.05, max=1),
            stop=stop_after_delay(timeout),
            retry_error_callback=_timeout_error(schema, timeout),
        )
        try:
            while retrying(_advance, conn, schema, to, done, retrying.copy(), on_wait):
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
    retrying: Retrying,
    on_wait: Callable[[Sequence[Alive]], None],
) -> bool:
    """Announce the next migration or apply it, after the last one the functions, too; returns whether to go on."""
    with conn.transaction():
        conn.execute(LIMITS)
        if not run(conn, migration.lock_transaction(schema)):
            raise Busy
        now = status(conn, schema)  # again: another session may have been faster
        now.require_migratable()
        now = now.toward(to)
        if now.up_to_date:
            return False
        following = now.pending[0] if now.pending else None
        if following is not None and following.breaking and now.applied:
            if not now.announced:
                _announce(conn, now, following)
                return True
            _require_no_workers(conn, schema, on_wait)
        applied = []
        if following is None or following.transactional:
            applied = list(apply_in_transaction(conn, now, following))
    if following is not None and not following.transactional:
        applied = _apply_with_session_lock(conn, schema, following, retrying)
    done += applied
    return True


def _announce(conn: psycopg.Connection[Any], now: Status, following: Migration) -> None:
    run(conn, migration.record(now.schema, Applied(following.version, following.name, ANNOUNCED, breaking=True)))
    if now.functions is not None:
        run(conn, worker.notify(now.schema, [SweepRequested()]))


def _require_no_workers(conn: psycopg.Connection[Any], schema: str, on_wait: Callable[[Sequence[Alive]], None]) -> None:
    """Raise `WorkersAlive` if a worker is alive; then block registration until the transaction ends.

    Also terminates sessions that dead workers left behind, which may hold locks.
    """
    alive = run(conn, worker.alive(schema))
    if not alive:
        run(conn, worker.block_registration(schema))
        alive = run(conn, worker.alive(schema))
    if alive:
        on_wait(alive)
        raise WorkersAlive(alive)
    run(conn, worker.terminate_stale_sessions(schema))


def _withdraw(conn: psycopg.Connection[Any], schema: str) -> None:
    """Withdraw the announcement, so that older workers can run again; unless another session may apply it."""
    with suppress(psycopg.Error, SchemaError), conn.transaction():
        if run(conn, migration.lock_transaction(schema)) and (announced := status(conn, schema).announced):
            run(conn, migration.withdraw(schema, announced.version))


def _apply_with_session_lock(
    conn: psycopg.Connection[Any], schema: str, following: Migration, retrying: Retrying
) -> list[Applied]:
    if not run(conn, migration.lock_session(schema)):
        raise Busy
    try:
        if following not in status(conn, schema).pending:
            return []
        return apply_outside_transaction(conn, schema, following, retrying)
    finally:
        if is_idle(conn):
            run(conn, migration.unlock_session(schema))


def _is_transient(error: BaseException) -> bool:
    match error:
        case Busy() | WorkersAlive() | psycopg.errors.LockNotAvailable() | psycopg.errors.DeadlockDetected():
            return True
        case psycopg.errors.UniqueViolation():
            return error.diag.table_name in CONTENDED
        case _:
            return False


def _examined(schema: str, info: migration.SchemaInfo, secured: Sequence[role.RowSecurity]) -> bool:
    if info.moved and not info.engine:
        raise renamed_error(schema, info.moved)
    require_all_rows(secured)
    if info.made_for is not None and info.made_for != schema:
        raise SchemaOutdated(wrong_schema_message(schema, info.made_for), hint=migrate_command(schema))
    return info.readable or not info.ours


@contextmanager
def _autocommit(conn: psycopg.Connection[Any]) -> Iterator[None]:
    if not is_idle(conn):
        raise ValueError("conn must be open and outside a transaction")
    before = conn.autocommit
    conn.autocommit = True
    try:
        yield
    finally:
        if not conn.closed:
            conn.autocommit = before


def _timeout_error(schema: str, timeout: timedelta) -> Callable[[RetryCallState], None]:
    def raise_error(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        hint = "Nothing is half done; run it again."
        match error:
            case Busy():
                reason = "another session is migrating it"
            case WorkersAlive():
                reason = f"the next migration breaks the code of workers that have not ended: {error}"
                hint = "Stop them, and run it again. Nothing is half done, and workers may start."
            case _:
                reason = f"a lock was not available ({error})"
        raise SchemaError(
            f'schema "{schema}" could not be migrated within {timeout.total_seconds():.0f} s: {reason}', hint=hint
        ) from error

    return raise_error
