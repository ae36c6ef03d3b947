"""Check the server: version, encoding, settings, logging, connections and clock."""

import time
from collections.abc import Iterator
from datetime import timedelta

from pgflow.config import DEFAULT_LIMIT
from pgflow.database.connect import MIN_SERVER_VERSION
from pgflow.database.encoding import NEW_DATABASE_HINT, unsupported_encoding
from pgflow.database.settings import ENCODING
from pgflow.database.statement import run
from pgflow.doctor.finding import Check, Result, Target, note, ok, problem
from pgflow.store import doctor

__all__ = ["CHECKS"]

NEWEST_TESTED = 18
PER_WORKER = 3  # connections that each worker keeps: for work, for heartbeats, to listen
MOST_PER_WORKER = PER_WORKER + DEFAULT_LIMIT  # plus one for each transactional step in flight, up to the --queue limit
LIMITED = f"{DEFAULT_LIMIT} at once on each, or as many as its --queue limits allow"
MAX_CLOCK_SKEW = timedelta(seconds=2)
RESTORE_CLOCK = (
    'create or replace function "{}".now() returns timestamptz language sql stable parallel safe '
    "as 'select statement_timestamp()'"
)

SLOW_LOGS = ("log_min_duration_statement", "log_min_duration_sample")  # log a statement that takes this long
SAFE_SETTINGS = {"fsync": "on", "full_page_writes": "on", "autovacuum": "on", "track_counts": "on"}


def version(target: Target) -> Iterator[Result]:
    """Whether the server's version is supported and it accepts writes."""
    found = run(target.conn, doctor.server(target.schema))
    major, release = found.number // 10_000, found.version.split()[0]  # without the packager's suffix
    if found.standby:
        yield problem("this is a standby: it accepts no writes", "point --dsn or PGFLOW_DSN at the primary")
    elif found.read_only:
        yield problem("default_transaction_read_only is on", "alter database … reset default_transaction_read_only")
    elif major > NEWEST_TESTED:
        yield note(f"PostgreSQL {release} is newer than {NEWEST_TESTED}, the newest that pgflow is tested on")
    else:
        yield ok(f"PostgreSQL {release}; pgflow runs on {MIN_SERVER_VERSION} to {NEWEST_TESTED}")


def encoding(target: Target) -> Iterator[Result]:
    """Whether the database can store any text."""
    reason = unsupported_encoding(run(target.conn, doctor.server(target.schema)).encoding)
    if reason:
        yield problem(reason, f"{NEW_DATABASE_HINT}; then copy the data with pg_dump and psql")
    else:
        yield ok(f"the database is encoded in {ENCODING}")


def settings(target: Target) -> Iterator[Result]:
    """Whether the settings keep committed data durable and dead rows vacuumed."""
    found = run(target.conn, doctor.settings(target.schema))
    is_safe = True
    for name, value in SAFE_SETTINGS.items():
        if found[name] != value:
            is_safe = False
            yield problem(f"{name} is {found[name]}", f"alter system set {name} = {value}; select pg_reload_conf()")
    if found["synchronous_commit"] == "off":
        is_safe = False
        yield problem("synchronous_commit is off", "alter system set synchronous_commit = on; select pg_reload_conf()")
    isolation = found["default_transaction_isolation"]
    if isolation != "read committed":
        is_safe = False
        yield note(
            f"default_transaction_isolation is {isolation}; workers set their own, but your transactions may fail",
            "retry transactions that start or resume instances when they fail with SQLSTATE 40001",
        )
    if is_safe:
        yield ok(", ".join(f"{name} {found[name]}" for name in [*SAFE_SETTINGS, "synchronous_commit"]))


def logs(target: Target) -> Iterator[Result]:
    """Whether the server logs statement parameters, which are inputs, outputs and payloads."""
    found = run(target.conn, doctor.settings(target.schema))
    is_logging = found["log_statement"] in ("mod", "all") or any(found[name] != "-1" for name in SLOW_LOGS)
    logged = []
    if is_logging and found["log_parameter_max_length"] != "0":
        logged.append(("log_parameter_max_length", "statements are logged with their parameters"))
    if found["log_parameter_max_length_on_error"] != "0":
        logged.append(("log_parameter_max_length_on_error", "failed statements are logged with their parameters"))
    for name, what in logged:
        fix = f"alter system set {name} = 0; select pg_reload_conf()"
        yield note(f"{what}: {name} is {found[name]}", fix)
    if not logged:
        yield ok("the server logs no statement parameters")


def connections(target: Target) -> Iterator[Result]:
    """Whether the live workers, and one more, can open the connections that they may need."""
    found = run(target.conn, doctor.connections(target.schema))
    free = found.usable - found.used
    what = f"{found.used} of {found.usable} connections are in use"
    fix = "close other connections, or raise the server's max_connections"
    if free < PER_WORKER:
        yield problem(f"{what}, and a worker needs {PER_WORKER}", fix)
        return
    live = run(target.conn, doctor.workers(target.schema)).live
    if live * MOST_PER_WORKER > found.usable:
        most = live * MOST_PER_WORKER
        yield note(f"{what}; {live} workers may need up to {most} for transactional steps, {LIMITED}", fix)
    elif free < MOST_PER_WORKER:
        yield note(f"{what}; one worker may need up to {MOST_PER_WORKER} for transactional steps, {LIMITED}", fix)
    else:
        yield ok(what)


def clock(target: Target) -> Iterator[Result]:
    """Whether this machine's clock agrees with the database's, and pgflow's clock is the database's."""
    before = time.time()
    database = run(target.conn, doctor.clock(target.schema))
    after = time.time()
    skew = database.time - (before + after) / 2
    if database.ahead:
        way = "ahead of" if database.ahead > 0 else "behind"
        found = f"pgflow.now() is {abs(database.ahead):.0f} s {way} the server's clock: a test has moved it"
        yield problem(found, f"as the owner, restore it: {RESTORE_CLOCK.format(target.schema)}")
    elif abs(skew) > MAX_CLOCK_SKEW.total_seconds() + (after - before) / 2:
        way = "behind" if skew > 0 else "ahead of"
        yield note(f"this machine's clock is {abs(skew):.0f} s {way} the database's", "let NTP set the clocks")
    else:
        yield ok("this machine's clock agrees with the database's")


CHECKS = (
    Check("server", "workers write, and pgflow is tested on a range of versions", version),
    Check("encoding", "inputs and outputs may contain any text, and storing an unsupported character fails", encoding),
    Check("settings", "committed data must survive a crash, and dead rows must be vacuumed", settings),
    Check("logs", "parameters contain inputs and outputs, and more people read logs than tables", logs),
    Check("connections", "a worker without a connection does no work", connections),
    Check("clock", "pgflow.now() decides everything; only the times in logs depend on this machine's clock", clock),
)
