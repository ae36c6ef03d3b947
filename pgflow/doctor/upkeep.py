"""Look at the database's upkeep: what keeps dead rows from being removed, and indexes that are of no use."""

from collections.abc import Iterator
from datetime import timedelta

from psycopg import sql

from pgflow.database.adapters import ADAPTERS
from pgflow.database.statement import run
from pgflow.doctor.finding import Check, Result, Target, capped, note, ok, problem, span
from pgflow.store import doctor

__all__ = ["CHECKS"]

LONG = timedelta(minutes=5)  # for a transaction: worth a word
TOO_LONG = timedelta(hours=1)
OLD_SLOT = 10_000_000  # transactions
MANY_DEAD = 50_000  # rows; autovacuum starts at 5,000
VACUUM_WITHIN = 600.0  # seconds
LATE_FREEZE = 1.5  # times the age at which the server freezes by itself
LAST_FREEZE = 1_000_000_000  # transactions: about half of what there are


def transactions(patient: Target) -> Iterator[Result]:
    """Old transactions."""
    found = run(patient.conn, doctor.transactions(patient.schema, LONG))
    for each in found:
        what = (
            f"process {each.pid} ({each.application or 'no application_name'}) has been in a transaction for "
            f"{span(each.age)}; {each.state}, its last statement began {span(each.query_age)} ago"
        )
        mend = f"select pg_terminate_backend({each.pid})"
        if each.state != "active":
            mend += "; and set idle_in_transaction_session_timeout"
        yield problem(what, mend) if each.age >= TOO_LONG.total_seconds() else note(what, mend)
    sight = run(patient.conn, doctor.sight(patient.schema))
    if not sight.sees:
        yield note(f"{sight.role} does not see other roles' sessions", f'grant pg_read_all_stats to "{sight.role}"')
    elif not found:
        yield ok(f"no transaction is older than {span(LONG.total_seconds())}")


def prepared(patient: Target) -> Iterator[Result]:
    """Prepared transactions that nobody ends."""
    found = run(patient.conn, doctor.prepared(patient.schema, LONG))
    for each in found:
        what = f"the prepared transaction {each.name!r} has been open for {span(each.age)}"
        quoted = sql.Literal(each.name).as_string(ADAPTERS)
        yield problem(what, f"commit prepared {quoted}, or rollback prepared {quoted}")
    if not found:
        yield ok("no prepared transaction is left open")


def slots(patient: Target) -> Iterator[Result]:
    """Replication slots that keep old rows."""
    is_well = True
    for each in run(patient.conn, doctor.slots(patient.schema)):
        what = f'replication slot "{each.name}" keeps rows of {each.age} transactions ago'
        mend = f"if its consumer is gone for good: select pg_drop_replication_slot('{each.name}')"
        if each.age >= OLD_SLOT:
            is_well = False
            yield problem(what, mend if not each.active else "see why its consumer lags")
        elif not each.active:
            is_well = False
            yield note(f"{what}, and nobody reads it", mend)
    if is_well:
        yield ok("no replication slot keeps old rows for long")


def dead(patient: Target) -> Iterator[Result]:
    """Dead rows in the table of tokens."""
    found = run(patient.conn, doctor.dead(patient.schema))
    table = f"{patient.schema}.jobs"
    when = "never vacuumed" if found.vacuumed is None else f"vacuumed {span(found.vacuumed)} ago"
    what = f"{table} has {found.dead:,} dead rows beside {found.live:,} live ones, {when}"
    is_late = found.vacuumed is None or found.vacuumed > VACUUM_WITHIN
    if found.dead > max(MANY_DEAD, found.live) and is_late:
        yield problem(what, f"end what is told under transactions, prepared and slots; then: vacuum {table}")
    else:
        yield ok(what)


def wraparound(patient: Target) -> Iterator[Result]:
    """Old rows that were not frozen for too long."""
    found = run(patient.conn, doctor.wraparound(patient.schema))
    is_well = True
    for count, noun, limit in (
        (found.transactions, "transactions", found.freeze_at),
        (found.multixacts, "multixacts", found.multixact_freeze_at),
    ):
        what = f"the oldest row that is not frozen is {count:,} {noun} old"
        mend = "end what is told under transactions, prepared and slots; then: vacuum freeze"
        if count >= LAST_FREEZE:
            is_well = False
            yield problem(what, mend)
        elif count > LATE_FREEZE * limit:
            is_well = False
            yield note(f"{what}; autovacuum should have frozen it at {limit:,}", mend)
    if is_well:
        yield ok(f"the oldest row that is not frozen is {found.transactions:,} transactions old")


def indexes(patient: Target) -> Iterator[Result]:
    """Indexes that were never finished."""
    found = run(patient.conn, doctor.indexes(patient.schema))
    for each in found:
        name = sql.Identifier(patient.schema, each.name).as_string(None)
        if each.building:
            yield note(f"index {name} on {each.table} is being built")
        elif "_ccnew" in each.name or "_ccold" in each.name:
            yield problem(f"index {name} on {each.table} is what a broken-off reindex left", f"drop index {name}")
        else:
            yield problem(f"index {name} on {each.table} is invalid", f"reindex index concurrently {name}")
    if not found:
        yield ok("every index is valid")


def sequences(patient: Target) -> Iterator[Result]:
    """Sequences that give out no new value: behind their tables, exhausted or missing."""
    found = run(patient.conn, doctor.sequences(patient.schema))
    for each in found:
        if each.fault is not None:
            yield problem(each.fault, each.repair)
    if hidden := [each.name for each in found if each.name is not None and each.last is None]:
        grant = sql.SQL("grant select on all sequences in schema {} to {}")
        names = sql.Identifier(patient.schema), sql.Identifier(patient.conn.info.user)
        yield note(f"this role may not read {capped(len(hidden), 'sequence')}", grant.format(*names).as_string(None))
    elif not any(each.fault for each in found):
        yield ok("every sequence is ahead of its table")


KEEPS = "dead rows that must be kept make claims slower and slower"
CHECKS = (
    Check("transactions", KEEPS, transactions),
    Check("prepared", f"it holds locks, and {KEEPS}", prepared),
    Check("slots", f"they keep files, too, and {KEEPS}", slots),
    Check("dead-rows", "claims pass over dead rows", dead),
    Check("wraparound", "a server that runs out of transaction ids takes no more writes", wraparound),
    Check("sequences", "inserts fail, or wait, until a sequence gives out a new value", sequences),
    Check("indexes", "a build that failed leaves an index that costs writes and serves no query", indexes),
)
