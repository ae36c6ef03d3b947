"""Check the schema: migrations, privileges, row-level security and the stored definitions."""

from collections.abc import Iterator

from pgflow.client.registration import check as check_definitions
from pgflow.core.definition.registry import Registry
from pgflow.database.statement import run
from pgflow.doctor.finding import Check, Result, Target, note, ok, problem
from pgflow.errors import GraphChanged
from pgflow.migrations.migrate import status
from pgflow.migrations.schema import migrate_command
from pgflow.store import definition, migration, role

__all__ = ["CHECKS"]


def schema(target: Target) -> Iterator[Result]:
    """Whether the schema is up to date. Raises as a worker does when there is no usable schema."""
    found = run(target.conn, migration.inspect(target.schema))
    if found.ours and not found.readable:
        yield note("this role may not read the table of migrations", f"grant select on {target.schema}.migrations")
        return
    now = status(target.conn, target.schema)
    if not now.version or any(each.breaking for each in now.unknown):
        now.require_usable()
    if not now.is_usable:
        yield problem(now.outdated, _migration_command(target))
    else:
        newer = ", newer than this pgflow" if now.unknown else ""
        yield ok(f'schema "{target.schema}" is up to date, at {now.version:04}{newer}')


def rights(target: Target) -> Iterator[Result]:
    """Whether privileges are those that `pgflow migrate` and `pgflow roles` grant."""
    found = run(target.conn, role.find_drift(target.schema))
    for each in found:
        yield problem(str(each), f"{_migration_command(target)}; or as the owner: {each.repair}")
    if not found:
        yield ok("PUBLIC has no rights on tables, and functions run as they should")


def row_security(target: Target) -> Iterator[Result]:
    """Whether row-level security hides rows from roles that have privileges on the table."""
    found = run(target.conn, role.find_row_security(target.schema))
    for permitted in (False, True):
        if hidden := [each for each in found if each.permitted == permitted]:
            error = role.row_security_error(hidden)
            result = note if permitted else problem
            yield result(str(error), error.hint or "")
    if not found:
        yield ok("row-level security hides no rows")


def definitions(target: Target) -> Iterator[Result]:
    """Whether the app's workflows are stored with their current graphs."""
    if target.app is None:
        return
    registry = Registry(target.app.workflows, has_codec=True)  # the app has checked whether it may declare secrets
    is_current = True
    for workflow in target.app.versions:
        graph = workflow.graph
        stored = run(target.conn, definition.read(target.schema, workflow=graph.name, version=graph.version))
        if stored is None:
            is_current = False
            yield note(
                f"{graph.name} version {graph.version} is not in the database yet",
                "start a worker with the app, or an instance from it",
            )
            continue
        try:
            check_definitions(registry, [stored])
        except GraphChanged as error:
            is_current = False
            yield problem(str(error), error.hint or "pgflow validate")
    if is_current:
        yield ok(f"{len(target.app.versions)} workflow version(s) of the app are stored with their current graphs")


def _migration_command(target: Target) -> str:
    return migrate_command(target.schema).removeprefix("Run: ")


CHECKS = (
    Check("schema", "workers refuse a schema of another version", schema, is_required=True),
    Check("rights", "a role must have the privileges that it was granted, and no others", rights),
    Check("row-security", "lists omit hidden rows, and workers do not claim them", row_security),
    Check("definitions", "a changed graph under an old version is rejected", definitions),
)
