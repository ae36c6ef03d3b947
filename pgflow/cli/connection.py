"""Open a command's connection, and add diagnosis to errors that the database alone cannot explain."""

import getpass
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import click
import psycopg

from pgflow.cli.error_reporting import GlobalOptions
from pgflow.cli.nearest import nearest, with_nearest
from pgflow.database.connect import Connection, connect
from pgflow.database.db_errors import may_be_schema_mismatch
from pgflow.database.statement import run
from pgflow.errors import DatabaseError, NotFound, SchemaError, UnknownWorkflow
from pgflow.migrations.migrate import check, examine
from pgflow.store import audit, definition

__all__ = ["identified", "open_connection", "os_user", "require_workflow"]


@contextmanager
def open_connection(
    dsn: str, schema: str, workflow: str | None = None, role: str = "client", *, pooler: bool | None = None
) -> Iterator[Connection]:
    """Open one connection; a pool, as programs use it, would start threads and a second connection.

    `pooler`: whether the DSN leads to a pooler; None takes --pooler.
    A renamed schema, whose functions would use the tables of another one, is refused at once, as is a schema whose rows
    row-level security hides. An unknown name is reported with similar ones, a missing right with the part of
    `pgflow roles` that has it, and a statement that fails because the
    schema is missing, outdated or not pgflow's is reported as such.
    """
    if pooler is None:
        pooler = click.get_current_context().ensure_object(GlobalOptions).pooler
    with connect(dsn, role, pooler=pooler) as conn:
        examine(conn, schema)
        try:
            yield conn
        except psycopg.errors.InsufficientPrivilege as error:
            part = "dashboard" if role == "read" else "client, or of an operator"
            raise DatabaseError(
                f"the role {conn.info.user} may not do this: {error.diag.message_primary}",
                hint=f"It needs the rights of a {part}: the schema's owner grants them with pgflow roles --apply",
            ) from error
        except (SchemaError, psycopg.Error) as error:
            if may_be_schema_mismatch(error):
                check(conn, schema)
            raise
        except UnknownWorkflow as error:
            if workflow is not None:
                require_workflow(workflow, run(conn, definition.names(schema)))
            raise with_nearest(error, conn, schema) from error
        except NotFound as error:
            raise with_nearest(error, conn, schema) from error


def os_user() -> str | None:
    """Return the name of the system's user, None if it has none."""
    with suppress(OSError, KeyError, ImportError):  # a user id without a name, as in a container
        return getpass.getuser()
    return None


@contextmanager
def identified(conn: Connection, schema: str) -> Iterator[None]:
    """Run the block in a transaction whose audit rows name the system's user beside that of the database."""
    with conn.transaction():
        run(conn, audit.identify(schema, os_user()))
        yield


def require_workflow(workflow: str, known: list[str]) -> None:
    """Raise `UnknownWorkflow` unless the name is among the known ones; the hint suggests similar names."""
    if workflow in known:
        return
    if near := nearest(workflow, known):
        hint = f"Did you mean {' or '.join(near)}?"
    elif known:
        hint = f"Registered workflows: {', '.join(known[:10])}{', …' if len(known) > 10 else ''}."
    else:
        hint = "Start a worker with the app that defines it: pgflow worker --app module:name"
    raise UnknownWorkflow(f"no workflow named {workflow!r} is registered here", hint=hint)
