"""Check for a connection pooler between here and PostgreSQL, and whether notifications arrive."""

import time
from collections.abc import Iterator

from psycopg import sql

from pgflow.database.connect import connect
from pgflow.database.statement import run
from pgflow.doctor.finding import Check, Result, Target, note, ok, problem
from pgflow.store import doctor

__all__ = ["CHECKS"]

LISTEN_SECONDS = 1.0


def pooler(target: Target) -> Iterator[Result]:
    """Whether there is a pooler, whether it was declared, and whether notifications arrive."""
    if run(target.conn, doctor.server(target.schema)).standby:
        yield note("not checked: a standby does not support notifications")
        return
    with (
        connect(target.dsn, "read", pooler=True) as listener,
        connect(target.dsn, "read", pooler=True) as notifier,
    ):
        claimed_pid = listener.info.backend_pid
        first_pid = run(listener, doctor.backend(target.schema))
        channel = f"pgflow_doctor_{claimed_pid}_{time.monotonic_ns()}"
        listener.execute(sql.SQL("listen {}").format(sql.Identifier(channel)))
        # From a second connection: a session's own notifications arrive through any pooler.
        run(notifier, doctor.echo(target.schema, channel))
        is_notified = bool(list(listener.notifies(timeout=LISTEN_SECONDS, stop_after=1)))
        # A pooler invents the backend's pid, or runs the next transaction on another backend.
        has_pooler = run(listener, doctor.backend(target.schema)) != first_pid or first_pid != claimed_pid
        listener.execute("unlisten *")
    if has_pooler and not target.uses_pooler:
        yield problem(
            "there is an undeclared pooler: workers and clients refuse to connect through it",
            "PGFLOW_POOLER=1, --pooler or Pgflow(…, pooler=True); or connect to PostgreSQL directly",
        )
    elif has_pooler:
        effect = "arrive, so workers may --listen" if is_notified else "do not arrive: workers find work by polling"
        yield ok(f"a declared pooler; notifications {effect}")
    elif is_notified:
        yield ok("a direct connection; notifications arrive")
    else:
        yield note("notifications do not arrive: workers find work by polling", "start workers with --no-listen")


CHECKS = (
    Check(
        "pooler",
        "session state left in a pooler reaches another client; without notifications, work waits for the next poll",
        pooler,
        is_in_transaction=False,
    ),
)
