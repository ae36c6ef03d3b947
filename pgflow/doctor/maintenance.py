"""Check what vacuum depends on: open transactions, dead rows and wraparound; and indexes and sequences."""

from collections.abc import Iterator
from datetime import timedelta

from psycopg import sql

from pgflow.database.adapters import ADAPTERS
from pgflow.database.statement import run
from pgflow.doctor.finding import Check, Result, Target, capped, duration, note, ok, problem
from pgflow.store import doctor

__all__ = ["CHECKS"]

LONG = timedelta(minutes=5)  # a transaction this old is a note
TOO_LONG = timedelta(hours=1)
OLD_SLOT = 10_000_000  # transactions
MANY_DEAD = 50_000  # rows; autovacuum starts at 5,000
VACUUM_WITHIN = 600.0  # seconds
LATE_FREEZE = 1.5  # times the age at which the server freezes by itself
LAST_FREEZE = 1_000_000_000  # transactions: about half of what there are
RELEASE = "fix the findings of transactions, prepared and slots"


def transactions(target: Target) -> Iterator[Result]:
    """Old transactions."""
    found = run(target.conn, doctor.transactions(target.schema, LONG))
    for each in found:
        what = (
            f"process {each.pid} ({each.application or 'no application_name'}) has been in a transaction for "
            f"{duration(each.age)}; {each.state}, its last statement began {duration(each.query_age)} ago"
        )
        fix = f"select pg_terminate_backend({each.pid})"
        if each.state != "active":
            fix += "; and set idle_in_transaction_session_timeout"
        yield problem(what, fix) if each.age >= TOO_LONG.total_seconds() else note(what, fix)
    visibility = run(target.conn, doctor.visibility(target.schema))
    if not visibility.complete:
        fix = f'grant pg_read_all_stats to "{visibility.role}"'
        yield note(f"{visibility.role} does not see other roles' sessions", fix)
    elif not found:
        yield ok(f"no transaction is older than {duration(LONG.total_seconds())}")


def prepared(target: Target) -> Iterator[Result]:
    """Prepared transactions that were never finished."""
    found = run(target.conn, doctor.prepared(target.schema, LONG))
    for each in found:
        what = f"the prepared transaction {each.name!r} has been open for {duration(each.age)}"
        quoted = sql.Literal(each.name).as_string(ADAPTERS)
        yield problem(what, f"commit prepared {quoted}, or rollback prepared {quoted}")
    if not found:
        yield ok("no prepared transaction is left open")


def slots(target: Target) -> Iterator[Result]:
    """Replication slots that keep dead rows."""
    is_healthy = True
    for each in run(target.conn, doctor.slots(target.schema)):
        what = f'replication slot "{each.name}" keeps rows of {each.age} transactions ago'
        fix = f"if its consumer is gone for good: select pg_drop_replication_slot('{each.name}')"
        if each.age >= OLD_SLOT:
            is_healthy = False
            yield problem(what, fix if not each.active else "find out why its consumer lags")
        elif not each.active:
            is_healthy = False
            yield note(f"{what}, and has no consumer", fix)
    if is_healthy:
        yield ok("no replication slot keeps dead rows for long")


def dead_rows(target: Target) -> Iterator[Result]:
    """Dead rows in the jobs table."""
    found = run(target.conn, doctor.dead_rows(target.schema))
    table = f"{target.schema}.jobs"
    when = "never vacuumed" if found.vacuumed is None else f"vacuumed {duration(found.vacuumed)} ago"
    what = f"{table} has {found.dead:,} dead rows beside {found.live:,} live ones, {when}"
    is_late = found.vacuumed is None or found.vacuumed > VACUUM_WITHIN
    if found.dead > max(MANY_DEAD, found.live) and is_late:
        yield problem(what, f"{RELEASE}; then: vacuum {table}")
    else:
        yield ok(what)


def wraparound(target: Target) -> Iterator[Result]:
    """Old rows that vacuum has not frozen for too long."""
    found = run(target.conn, doctor.wraparound(target.schema))
    is_healthy = True
    for count, noun, limit in (
        (found.transactions, "transactions", found.freeze_at),
        (found.multixacts, "multixacts", found.multixact_freeze_at),
    ):
        what = f"the oldest unfrozen row is {count:,} {noun} old"
        fix = f"{RELEASE}; then: vacuum freeze"
        if count >= LAST_FREEZE:
            is_healthy = False
            yield problem(what, fix)
        elif count > LATE_FREEZE * limit:
            is_healthy = False
            yield note(f"{what}; autovacuum should have frozen it at {limit:,}", fix)
    if is_healthy:
        yield ok(f"the oldest unfrozen row is {found.transactions:,} transactions old")


def indexes(target: Target) -> Iterator[Result]:
    """Invalid indexes."""
    found = run(target.conn, doctor.indexes(target.schema))
    for each in found:
        name = sql.Identifier(target.schema, each.name).as_string(None)
        if each.building:
            yield note(f"index {name} on {each.table} is being built")
        elif "_ccnew" in each.name or "_ccold" in each.name:
            yield problem(f"index {name} on {each.table} is left over from a failed reindex", f"drop index {name}")
        else:
            yield problem(f"index {name} on {each.table} is invalid", f"reindex index concurrently {name}")
    if not found:
        yield ok("every index is valid")


def sequences(target: Target) -> Iterator[Result]:
    """Sequences that cannot give out a new value: behind their tables, exhausted or missing."""
    found = run(target.conn, doctor.sequences(target.schema))
    for each in found:
        if each.fault is not None:
            yield problem(each.fault, each.repair)
    if hidden := [each.name for each in found if each.name is not None and each.last is None]:
        grant = sql.SQL("grant select on all sequences in schema {} to {}")
        names = sql.Identifier(target.schema), sql.Identifier(target.conn.info.user)
        yield note(f"this role may not read {capped(len(hidden), 'sequence')}", grant.format(*names).as_string(None))
    elif not any(each.fault for each in found):
        yield ok("every sequence is ahead of its table")


SLOWER_CLAIMS = "dead rows that vacuum cannot remove make claims slower and slower"
CHECKS = (
    Check("transactions", SLOWER_CLAIMS, transactions),
    Check("prepared", f"it holds locks, and {SLOWER_CLAIMS}", prepared),
    Check("slots", f"they also keep WAL files, and {SLOWER_CLAIMS}", slots),
    Check("dead-rows", "claims skip over dead rows", dead_rows),
    Check("wraparound", "a server that runs out of transaction ids accepts no more writes", wraparound),
    Check("sequences", "inserts fail, or wait, until a sequence gives out a new value", sequences),
    Check("indexes", "a failed build leaves an index that costs writes and serves no query", indexes),
)
