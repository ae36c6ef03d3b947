"""Run all checks against a database."""

from pgflow.app import Pgflow
from pgflow.database.connect import connect
from pgflow.doctor import maintenance, pooler, schema, server, work
from pgflow.doctor.finding import Check, Finding, Target

__all__ = ["CHECKS", "examine"]

CHECKS: tuple[Check, ...] = (*server.CHECKS, *schema.CHECKS, *pooler.CHECKS, *work.CHECKS, *maintenance.CHECKS)


def examine(dsn: str, schema: str, app: Pgflow | None = None, *, uses_pooler: bool = False) -> list[Finding]:
    """Run every check on a read-only connection and return the findings, in the order of the checks.

    With an `app`, its workflows are compared with the stored definitions. `uses_pooler` is whether a pooler was
    declared. Raises `SchemaError` when there is no schema to examine, and a connection error when there is no server.
    """
    # Connect as if through a pooler: startup options would be refused by one, and each check sets its own limits.
    with connect(dsn, "read", pooler=True) as conn:
        conn.read_only = True
        target = Target(conn, dsn, schema, app, uses_pooler=uses_pooler)
        return [finding for check in CHECKS for finding in check.run(target)]
