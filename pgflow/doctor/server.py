"""Look at the server: its version, its settings, its connections, the schema, what stands in between, the clock."""

import time
from collections.abc import Iterator
from datetime import timedelta

from psycopg import sql

from pgflow.client.registration import check as check_definitions
from pgflow.config import DEFAULT_LIMIT
from pgflow.core.definition.registry import Registry
from pgflow.database.connect import MIN_SERVER_VERSION, connect
from pgflow.database.encoding import NEW_DATABASE_HINT, unsupported_encoding
from pgflow.database.settings import ENCODING
from pgflow.database.statement import run
from pgflow.doctor.finding import Check, Result, Target, note, ok, problem
from pgflow.errors import GraphChanged, PgflowError
from pgflow.migrations.migrate import status
from pgflow.migrations.schema import migrate_command
from pgflow.store import definition, doctor, migration, role

__all__ = ["CHECKS"]

NEWEST_TESTED = 18
LISTEN_SECONDS = 1.0
PER_WORKER = 3  # connections that each worker keeps: for work, for heartbeats, to listen
MOST_PER_WORKER = PER_WORKER + DEFAULT_LIMIT  # and one for each transactional step that runs: a --queue's limit of them
LIMITED = f"{DEFAULT_LIMIT} at once on each, or as many as its --queue limits allow"
SKEW = timedelta(seconds=2)

TIMED = ("log_min_duration_statement", "log_min_duration_sample")  # log a statement that takes so long
SOUND = {"fsync": "on", "full_page_writes": "on", "autovacuum": "on", "track_counts": "on"}


def version(patient: Target) -> Iterator[Result]:
    """The server's version, and whether it can be written to."""
    found = run(patient.conn, doctor.server(patient.schema))
    major, said = found.number // 10_000, found.version.split()[0]  # without the packager's name
    if found.standby:
        yield problem("this is a standby: nothing can be written here", "point --dsn or PGFLOW_DSN at the primary")
    elif found.read_only:
        yield problem("default_transaction_read_only is on", "alter database … reset default_transaction_read_only")
    elif major > NEWEST_TESTED:
        yield note(f"PostgreSQL {said} is newer than {NEWEST_TESTED}, the newest that pgflow is tested on")
    else:
        yield ok(f"PostgreSQL {said}; pgflow runs on {MIN_SERVER_VERSION} to {NEWEST_TESTED}")


def encoding(patient: Target) -> Iterator[Result]:
    """Whether the database can store any text."""
    reason = unsupported_encoding(run(patient.conn, doctor.server(patient.schema)).encoding)
    if reason:
        yield problem(reason, f"{NEW_DATABASE_HINT}; then copy the data with pg_dump and psql")
    else:
        yield ok(f"the database is encoded in {ENCODING}")


def schema(patient: Target) -> Iterator[Result]:
    """How far the schema is; raises as a worker would when there is none that could be looked at."""
    if (standing := run(patient.conn, migration.inspect(patient.schema))).ours and not standing.readable:
        yield note("this role may not read the ledger of migrations", f"grant select on {patient.schema}.migrations")
        return
    now = status(patient.conn, patient.schema)
    if not now.version or any(each.breaking for each in now.unknown):
        now.require_usable()
    if not now.is_usable:
        yield problem(now.outdated, migrate_command(patient.schema).removeprefix("Run: "))
    else:
        newer = ", newer than this pgflow" if now.unknown else ""
        yield ok(f'schema "{patient.schema}" is up to date, at {now.version:04}{newer}')


def rights(patient: Target) -> Iterator[Result]:
    """Rights that are not those that `pgflow migrate` and `pgflow roles` give."""
    found = run(patient.conn, role.find_drift(patient.schema))
    for each in found:
        yield problem(
            str(each), f"{migrate_command(patient.schema).removeprefix('Run: ')}; or as the owner: {each.repair}"
        )
    if not found:
        yield ok("PUBLIC has no rights on tables, and functions run as they should")


def row_security(patient: Target) -> Iterator[Result]:
    """Tables of which row-level security hides rows from roles that have rights on them."""
    found = run(patient.conn, role.find_row_security(patient.schema))
    for permitted in (False, True):
        if hidden := [each for each in found if each.permitted == permitted]:
            error = role.row_security_error(hidden)
            tell = note if permitted else problem
            yield tell(str(error), error.hint or "")
    if not found:
        yield ok("row-level security hides no rows")


def settings(patient: Target) -> Iterator[Result]:
    """Settings that break promises."""
    found = run(patient.conn, doctor.settings(patient.schema))
    is_sound = True
    for name, value in SOUND.items():
        if found[name] != value:
            is_sound = False
            yield problem(f"{name} is {found[name]}", f"alter system set {name} = {value}; select pg_reload_conf()")
    if found["synchronous_commit"] == "off":
        is_sound = False
        yield problem("synchronous_commit is off", "alter system set synchronous_commit = on; select pg_reload_conf()")
    isolation = found["default_transaction_isolation"]
    if isolation != "read committed":
        is_sound = False
        yield note(
            f"default_transaction_isolation is {isolation}; workers set their own, but yours may be refused",
            "be ready to repeat a transaction in which you start or resume (SQLSTATE 40001)",
        )
    if is_sound:
        yield ok(", ".join(f"{name} {found[name]}" for name in [*SOUND, "synchronous_commit"]))


def logs(patient: Target) -> Iterator[Result]:
    """Whether the server logs parameters of statements: these are inputs, outputs and payloads."""
    found = run(patient.conn, doctor.settings(patient.schema))
    is_logging = found["log_statement"] in ("mod", "all") or any(found[name] != "-1" for name in TIMED)
    told = []
    if is_logging and found["log_parameter_max_length"] != "0":
        told.append(("log_parameter_max_length", "statements are logged with their parameters"))
    if found["log_parameter_max_length_on_error"] != "0":
        told.append(("log_parameter_max_length_on_error", "statements that fail are logged with their parameters"))
    for name, what in told:
        mend = f"alter system set {name} = 0; select pg_reload_conf()"
        yield note(f"{what}: {name} is {found[name]}", mend)
    if not told:
        yield ok("the server logs no parameters of statements")


def connections(patient: Target) -> Iterator[Result]:
    """Whether the workers that live, and one more, have the connections that they may need."""
    found = run(patient.conn, doctor.connections(patient.schema))
    free = found.usable - found.used
    what = f"{found.used} of {found.usable} connections are in use"
    mend = "close other connections, or raise the server's max_connections"
    if free < PER_WORKER:
        yield problem(f"{what}, and a worker needs {PER_WORKER}", mend)
        return
    live = run(patient.conn, doctor.workers(patient.schema)).live
    if live * MOST_PER_WORKER > found.usable:
        most = live * MOST_PER_WORKER
        yield note(f"{what}; {live} workers may need up to {most} for transactional steps, {LIMITED}", mend)
    elif free < MOST_PER_WORKER:
        yield note(f"{what}; one worker may need up to {MOST_PER_WORKER} for transactional steps, {LIMITED}", mend)
    else:
        yield ok(what)


def pooler(patient: Target) -> Iterator[Result]:
    """Whether a pooler stands in between, whether pgflow knows of it, and whether notifications come through."""
    if run(patient.conn, doctor.server(patient.schema)).standby:
        yield note("not looked at: a standby takes no notifications")
        return
    with (
        connect(patient.dsn, "read", pooler=True) as ear,
        connect(patient.dsn, "read", pooler=True) as mouth,
    ):
        promised = ear.info.backend_pid
        first = run(ear, doctor.backend(patient.schema))
        channel = f"pgflow_doctor_{promised}_{time.monotonic_ns()}"
        ear.execute(sql.SQL("listen {}").format(sql.Identifier(channel)))
        # From another connection, for what one tells itself comes back through any pooler.
        run(mouth, doctor.echo(patient.schema, channel))
        is_heard = bool(list(ear.notifies(timeout=LISTEN_SECONDS, stop_after=1)))
        between = run(ear, doctor.backend(patient.schema)) != first or first != promised
        ear.execute("unlisten *")
    if between and not patient.pooler:
        yield problem(
            "a pooler stands in between, and nothing says so: neither workers nor clients will go through it",
            "PGFLOW_POOLER=1, --pooler or Pgflow(…, pooler=True); or let them go to PostgreSQL itself",
        )
    elif between:
        how = "arrive, so that workers may --listen" if is_heard else "do not arrive: workers find work by polling"
        yield ok(f"a pooler stands in between, and pgflow knows; notifications {how}")
    elif is_heard:
        yield ok("a direct connection; notifications arrive")
    else:
        yield note("notifications do not arrive: workers find work by polling", "start workers with --no-listen")


def clock(patient: Target) -> Iterator[Result]:
    """How far this machine's clock is from the database's."""
    before = time.time()
    there = run(patient.conn, doctor.clock(patient.schema))
    after = time.time()
    skew = there - (before + after) / 2
    if abs(skew) > SKEW.total_seconds() + (after - before) / 2:
        way = "behind" if skew > 0 else "ahead of"
        yield note(f"this machine's clock is {abs(skew):.0f} s {way} the database's", "let NTP set the clocks")
    else:
        yield ok("this machine's clock agrees with the database's")


def definitions(patient: Target) -> Iterator[Result]:
    """Whether the workflows of the app are stored with the graphs that they have now."""
    if patient.app is None:
        return
    registry = Registry(patient.app.workflows, has_codec=True)  # the app has looked whether it may have secrets
    unknown = changed = 0
    for workflow in patient.app.versions:
        graph = workflow.graph
        stored = run(patient.conn, definition.read(patient.schema, workflow=graph.name, version=graph.version))
        if stored is None:
            unknown += 1
            yield note(
                f"{graph.name} version {graph.version} is not known to the database yet",
                "start a worker with the app, or an instance from it",
            )
            continue
        try:
            check_definitions(registry, [stored])
        except GraphChanged as error:
            changed += 1
            yield problem(str(error), _mend(error))
    if not unknown and not changed:
        yield ok(f"{len(patient.app.versions)} workflow version(s) of the app are stored as they are")


def _mend(error: PgflowError) -> str:
    return error.hint or "pgflow validate"


CHECKS = (
    Check("server", "workers write, and pgflow is tested on a range of versions", version),
    Check("encoding", "inputs, outputs and signals may hold any text; what a database cannot store fails", encoding),
    Check("schema", "workers refuse a schema that is not theirs", schema, is_required=True),
    Check("rights", "a role may do what it was not given, or not do what it was", rights),
    Check("row-security", "what is hidden from a role is missing in lists, and not claimed by workers", row_security),
    Check("settings", "what is committed must survive a crash, and old rows must go", settings),
    Check("logs", "the parameters are inputs and outputs, and logs are read by others than the tables are", logs),
    Check("connections", "a worker that gets no connection does no work", connections),
    Check(
        "pooler",
        "what is left in a pooler's session reaches another client; and without notifications, work waits for a poll",
        pooler,
        is_in_transaction=False,
    ),
    Check("clock", "nothing depends on it, only the times in logs differ: the database's clock decides", clock),
    Check("definitions", "a changed graph under an old version is refused", definitions),
)
