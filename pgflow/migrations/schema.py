"""Compare a schema with the migrations of this code: whether it can be used or migrated, and what is pending."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pgflow.database.files import SCHEMA
from pgflow.database.migration_files import FUNCTIONS, Functions, Migration
from pgflow.errors import ConfigError, SchemaError, SchemaForeign, SchemaMissing, SchemaOutdated, SchemaTooNew
from pgflow.store.migration import Applied, SchemaInfo
from pgflow.store.role import PrivilegeDrift

__all__ = [
    "Status",
    "check_goal",
    "derive_status",
    "migrate_command",
    "migrations_table_error",
    "planned",
    "privileges_error",
    "renamed_error",
    "too_new",
    "wrong_schema_message",
]


@dataclass(frozen=True, slots=True)
class Status:
    """Which migrations a schema has.

    `latest` is the highest version that this code ships; `applied` are the recorded migrations in order, `pending`
    those of this code that are not applied, `unknown` those that only a newer pgflow knows, applied or announced.
    `functions` is the row that records the functions; `stale` is whether they are not those of this code. `made_for`
    is the schema that the functions name if that is another one, because the schema was renamed or restored under
    another name: they would use the tables of that schema. `drift` are privileges that differ from those that the SQL
    files grant. `announced` is the row of the pending migration that waits for older workers to end, if any.
    """

    schema: str
    latest: int
    applied: tuple[Applied, ...] = ()
    pending: tuple[Migration, ...] = ()
    unknown: tuple[Applied, ...] = ()
    functions: Applied | None = None
    stale: bool = True
    announced: Applied | None = None
    made_for: str | None = None
    drift: tuple[PrivilegeDrift, ...] = ()

    @property
    def version(self) -> int:
        """The schema's highest migration, 0 if it has none."""
        return max((each.version for each in self.applied), default=0)

    @property
    def up_to_date(self) -> bool:
        """Whether `migrate.up` has nothing to do."""
        return self.is_usable and not self.drift

    @property
    def is_usable(self) -> bool:
        """Whether this code can run on the schema's tables and functions."""
        return not self.pending and not self.stale

    @property
    def outdated(self) -> str:
        """Why this code cannot run on a schema that is not usable."""
        if self.made_for is not None:
            return wrong_schema_message(self.schema, self.made_for)
        if self.pending:
            return f'schema "{self.schema}" is at {self.version:04}, this pgflow needs {self.latest:04}'
        return f'the functions in schema "{self.schema}" are not those of this pgflow'

    def toward(self, to: int | None) -> Status:
        """Return the status restricted to migrations up to `to`; None is the newest.

        The functions need the newest tables, so they are installed with the last migration only.
        """
        if to is None or to >= self.latest:
            return self
        pending = tuple(each for each in self.pending if each.version <= to)
        return replace(self, pending=pending, stale=False, drift=())

    def require_reachable(self, to: int | None) -> None:
        """Raise `SchemaError` if the schema is past migration `to`, `ConfigError` if `to` does not exist."""
        check_goal(to, self.latest)
        if to is not None and to < self.version:
            raise SchemaError(
                f'schema "{self.schema}" is at {self.version:04}, and there is no way back to {to:04}: '
                "migrations go forward only",
                hint="An older pgflow runs on a newer schema unless a migration is breaking; then restore a backup.",
            )

    def require_migratable(self) -> None:
        """Raise `SchemaTooNew` if a newer pgflow has migrated the schema so that this one cannot migrate it."""
        for each in self.unknown:
            if each.breaking:
                raise too_new(self.schema, self.latest, each)
        if self.made_for is not None and self.unknown:
            raise SchemaTooNew(
                wrong_schema_message(self.schema, self.made_for),
                hint=f"{migrate_command(self.schema)}, with the newer pgflow that ships {self.unknown[-1]}",
            )

    def require_usable(self) -> None:
        """Raise `SchemaMissing`, `SchemaOutdated` or `SchemaTooNew` unless this code can run on the schema."""
        self.require_migratable()
        if self.is_usable:
            return
        if not self.version:
            raise SchemaMissing(f'pgflow is not installed in schema "{self.schema}"', hint=migrate_command(self.schema))
        raise SchemaOutdated(self.outdated, hint=migrate_command(self.schema))


def derive_status(
    schema: str,
    info: SchemaInfo,
    recorded: Sequence[Applied],
    migrations: Sequence[Migration],
    functions: Functions,
    drift: Sequence[PrivilegeDrift] = (),
) -> Status:
    """Return the status of a schema, from the results of `migration.inspect`, `migration.applied` and so on.

    Raises `SchemaForeign` if it has other tables than ours, `SchemaMissing` if it was renamed, `SchemaError` if an
    applied migration was changed, or rows that record migrations were lost.
    """
    if info.moved and not info.engine:
        raise renamed_error(schema, info.moved)
    applied = {each.version: each for each in recorded if each.version != FUNCTIONS and not each.announced}
    if info.engine and not applied:
        state = "is empty" if info.ours else "is missing"
        raise migrations_table_error(schema, f"has pgflow's tables, but its table {schema}.migrations {state}")
    if info.relations and not info.ours:
        raise SchemaForeign(
            f'schema "{schema}" holds {info.relations} tables that are not pgflow\'s',
            hint="Use a separate schema for pgflow: --schema NAME, or PGFLOW_SCHEMA.",
        )
    newest = max(applied, default=0)
    for each in migrations:
        row = applied.get(each.version)
        if row is None and each.version < newest:
            raise migrations_table_error(
                schema, f"is at {newest:04}, but its table migrations lacks the row {each.version:04} {each.name}"
            )
        if row is not None and row.checksum != each.checksum:
            raise SchemaError(
                f'migration {each.version:04}_{each.name} was changed after it had been applied to schema "{schema}"',
                hint="Install the pgflow that applied it; a change needs a new migration.",
            )
    latest = max((each.version for each in migrations), default=0)
    unknown = tuple(each for each in recorded if each.version > latest)
    made_for = info.made_for if info.made_for != schema else None
    installed = next((each for each in recorded if each.version == FUNCTIONS), None)
    return Status(
        schema=schema,
        latest=latest,
        applied=tuple(applied.values()),
        pending=tuple(each for each in migrations if each.version not in applied),
        unknown=unknown,
        functions=installed,
        # The functions of a newer pgflow must not be replaced by ours.
        stale=made_for is not None or (not unknown and (installed is None or installed.checksum != functions.checksum)),
        announced=next((each for each in recorded if each.announced and each.version <= latest), None),
        made_for=made_for,
        drift=() if unknown else tuple(drift),
    )


def check_goal(to: int | None, latest: int) -> None:
    """Raise `ConfigError` unless migration `to` exists; None is the newest."""
    if to is not None and not 1 <= to <= latest:
        raise ConfigError(
            f"there is no migration {to}: this pgflow knows 1 to {latest}",
            hint="Omit the version for the newest, or upgrade pgflow.",
        )


def too_new(schema: str, latest: int, row: Applied) -> SchemaTooNew:
    """Return the error of code that knows the schema up to `latest` and that a breaking migration excludes."""
    state = "is announced, and will be too new" if row.announced else "is too new"
    return SchemaTooNew(
        f'migration {row} of schema "{schema}" {state} for this pgflow, which knows the schema up to {latest:04}',
        hint=f"Deploy the pgflow that ships {row}.",
    )


def migrations_table_error(schema: str, problem: str) -> SchemaError:
    """Return the error for lost rows of the table `migrations`, and how to write them again."""
    option = "" if schema == SCHEMA else f" --schema {schema}"
    return SchemaError(
        f'schema "{schema}" {problem}. Nothing was changed',
        hint="Restore that table from a backup, or write it again, where N is the last applied migration: "
        f"pgflow migrate{option} --sql --ledger --to N | psql",
    )


def wrong_schema_message(schema: str, made_for: str) -> str:
    """Return the message for a schema whose functions were made for another one."""
    return f'schema "{schema}" was renamed or restored under this name: its functions still name "{made_for}"'


def renamed_error(schema: str, found: Sequence[str]) -> SchemaMissing:
    """Return the error for a schema that was renamed to one of the names in `found`."""
    names = " or ".join(f'"{each}"' for each in found)
    return SchemaMissing(
        f'pgflow is not installed in schema "{schema}", which seems to have been renamed to {names}: '
        f'functions there name "{schema}"',
        hint=f"{migrate_command(found[0])}, and use that name everywhere: --schema {found[0]} or "
        f'PGFLOW_SCHEMA={found[0]}; or undo the renaming: alter schema "{found[0]}" rename to "{schema}"',
    )


def privileges_error(found: Sequence[PrivilegeDrift]) -> SchemaError:
    """Return the error for privileges, at least one, that could not be restored."""
    return SchemaError(
        "; ".join(map(str, found)),
        hint=f"As a superuser, or as the role that granted it, run: {'; '.join(each.repair for each in found)}",
    )


def planned(status: Status, functions: Functions) -> list[Applied]:
    """Return what `migrate.up` would apply to a schema with this status."""
    entries = [Applied(each.version, each.name, each.checksum, each.breaking) for each in status.pending]
    if status.stale:
        entries.append(Applied(FUNCTIONS, "functions", functions.checksum, breaking=False))
    if status.drift:
        entries.append(Applied(FUNCTIONS, "rights", functions.checksum, breaking=False))
    return entries


def migrate_command(schema: str) -> str:
    """Return the hint that names the command to migrate a schema."""
    return "Run: pgflow migrate" + ("" if schema == SCHEMA else f" --schema {schema}")
