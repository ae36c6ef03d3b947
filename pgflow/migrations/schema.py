"""Judge a schema against the migrations of this code: may it be used, may it be migrated, and what is left to do."""

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
    "command",
    "derive_status",
    "lost",
    "moved",
    "planned",
    "privileges_error",
    "renamed",
    "too_new",
]


@dataclass(frozen=True, slots=True)
class Status:
    """How far a schema is.

    `version` is its highest migration, 0 when it has none; `latest` the highest that this code brings; `applied` the
    ledger's migrations in order, `pending` those of this code that it lacks, `unknown` those that only a newer pgflow
    knows, be they only announced; `functions` is the ledger's line about the functions, and `stale` says that they are
    not those of this code. `made_for` is the schema that the functions name where that is another one, because the
    schema was renamed or restored under another name: they would work on the tables of that one. `drift` are rights
    that are not those that the files give. `announced` is the line of the pending one that waits for older workers to
    end, if one does.
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
        """The schema's highest migration, 0 when it has none."""
        return max((each.version for each in self.applied), default=0)

    @property
    def up_to_date(self) -> bool:
        """Whether `migrate.up` would find nothing to do."""
        return self.is_usable and not self.drift

    @property
    def is_usable(self) -> bool:
        """Whether this code can work on the schema, as far as tables and functions go."""
        return not self.pending and not self.stale

    @property
    def outdated(self) -> str:
        """What keeps this code from working on a schema that is not usable."""
        if self.made_for is not None:
            return renamed(self.schema, self.made_for)
        if self.pending:
            return f'schema "{self.schema}" is at {self.version:04}, this pgflow needs {self.latest:04}'
        return f'the functions in schema "{self.schema}" are not those of this pgflow'

    def toward(self, to: int | None) -> Status:
        """Return it as it looks to who wants migration `to` and no further: None is the newest.

        The functions belong to the newest tables and come with the last migration only.
        """
        if to is None or to >= self.latest:
            return self
        pending = tuple(each for each in self.pending if each.version <= to)
        return replace(self, pending=pending, stale=False, drift=())

    def require_reachable(self, to: int | None) -> None:
        """Raise `SchemaError` when migration `to` lies behind the schema, `ConfigError` when nobody knows it."""
        check_goal(to, self.latest)
        if to is not None and to < self.version:
            raise SchemaError(
                f'schema "{self.schema}" is at {self.version:04}, and there is no way back to {to:04}: '
                "migrations go forward only",
                hint="An older pgflow runs on a newer schema unless it refuses; then restore a backup from before.",
            )

    def require_migratable(self) -> None:
        """Raise `SchemaTooNew` when a newer pgflow has made the schema into what this one cannot understand."""
        for each in self.unknown:
            if each.breaking:
                raise too_new(self.schema, self.latest, each)
        if self.made_for is not None and self.unknown:
            raise SchemaTooNew(
                renamed(self.schema, self.made_for),
                hint=f"{command(self.schema)}, with the pgflow that brought {self.unknown[-1]}: this one is older.",
            )

    def require_usable(self) -> None:
        """Raise `SchemaMissing`, `SchemaOutdated` or `SchemaTooNew` unless this code can work on the schema."""
        self.require_migratable()
        if self.is_usable:
            return
        if not self.version:
            raise SchemaMissing(f'schema "{self.schema}" holds no pgflow yet', hint=command(self.schema))
        raise SchemaOutdated(self.outdated, hint=command(self.schema))


def derive_status(
    schema: str,
    standing: SchemaInfo,
    ledger: Sequence[Applied],
    migrations: Sequence[Migration],
    functions: Functions,
    drift: Sequence[PrivilegeDrift] = (),
) -> Status:
    """Return how far a schema is, from what `migration.inspect` and `migration.applied` read.

    Raises `SchemaForeign` when it holds somebody else's tables, `SchemaMissing` when it was renamed, `SchemaError` when
    a migration was changed after it had been applied, or when the ledger was lost, or a line of it.
    """
    if standing.moved and not standing.engine:
        raise moved(schema, standing.moved)
    applied = {each.version: each for each in ledger if each.version != FUNCTIONS and not each.announced}
    if standing.engine and not applied:
        what = "is empty" if standing.ours else "is gone"
        raise lost(schema, f"holds pgflow's tables, but their ledger {schema}.migrations {what}")
    if standing.relations and not standing.ours:
        raise SchemaForeign(
            f'schema "{schema}" holds {standing.relations} tables that are not pgflow\'s',
            hint="Give pgflow a schema of its own: --schema NAME, or PGFLOW_SCHEMA.",
        )
    newest = max(applied, default=0)
    for each in migrations:
        line = applied.get(each.version)
        if line is None and each.version < newest:
            raise lost(schema, f"is at {newest:04}, but its ledger lacks the line {each.version:04} {each.name}")
        if line is not None and line.checksum != each.checksum:
            raise SchemaError(
                f'migration {each.version:04}_{each.name} was changed after it had been applied to schema "{schema}"',
                hint="Install the pgflow that applied it; changes need a migration of their own.",
            )
    latest = max((each.version for each in migrations), default=0)
    unknown = tuple(each for each in ledger if each.version > latest)
    made_for = standing.made_for if standing.made_for != schema else None
    in_place = next((each for each in ledger if each.version == FUNCTIONS), None)
    return Status(
        schema=schema,
        latest=latest,
        applied=tuple(applied.values()),
        pending=tuple(each for each in migrations if each.version not in applied),
        unknown=unknown,
        functions=in_place,
        # A newer pgflow's functions are newer: ours must not take their place.
        stale=made_for is not None or (not unknown and (in_place is None or in_place.checksum != functions.checksum)),
        announced=next((each for each in ledger if each.announced and each.version <= latest), None),
        made_for=made_for,
        drift=() if unknown else tuple(drift),
    )


def check_goal(to: int | None, latest: int) -> None:
    """Raise `ConfigError` unless there is a migration `to`; None, for the newest, is fine."""
    if to is not None and not 1 <= to <= latest:
        raise ConfigError(
            f"there is no migration {to}: this pgflow knows 1 to {latest}",
            hint="Leave the version away for the newest, or upgrade pgflow here.",
        )


def too_new(schema: str, latest: int, line: Applied) -> SchemaTooNew:
    """Return the error of a code that knows the schema up to `latest`, and that a migration has broken or will."""
    what = "is announced, and will be too new" if line.announced else "is too new"
    return SchemaTooNew(
        f'migration {line} of schema "{schema}" {what} for this pgflow, which knows the schema up to {latest:04}',
        hint=f"Deploy the pgflow that brings {line} here.",
    )


def lost(schema: str, what: str) -> SchemaError:
    """Return the error that says what the ledger of a schema lacks, and how to write it anew."""
    option = "" if schema == SCHEMA else f" --schema {schema}"
    return SchemaError(
        f'schema "{schema}" {what}. Nothing was changed',
        hint="Restore the ledger from a backup, or write it anew, N being the last migration that was applied: "
        f"pgflow migrate{option} --sql --ledger --to N | psql",
    )


def renamed(schema: str, made_for: str) -> str:
    """Say of a schema that its functions were made for another one."""
    return f'schema "{schema}" was renamed or restored under this name: its functions still name "{made_for}"'


def moved(schema: str, found: Sequence[str]) -> SchemaMissing:
    """Return the error that says under which names a schema is found that was renamed."""
    names = " or ".join(f'"{each}"' for each in found)
    return SchemaMissing(
        f'schema "{schema}" holds no pgflow; it seems to have been renamed to {names}, whose functions name "{schema}"',
        hint=f"{command(found[0])}, and give that name everywhere: --schema {found[0]} or PGFLOW_SCHEMA={found[0]}; "
        f'or undo it: alter schema "{found[0]}" rename to "{schema}"',
    )


def privileges_error(found: Sequence[PrivilegeDrift]) -> SchemaError:
    """Return the error that says which rights, at least one, could not be restored."""
    return SchemaError(
        "; ".join(map(str, found)),
        hint=f"As a superuser, or as who granted it, run: {'; '.join(each.repair for each in found)}",
    )


def planned(status: Status, functions: Functions) -> list[Applied]:
    """Return what `migrate.up` would do to a schema of this status."""
    entries = [Applied(each.version, each.name, each.checksum, each.breaking) for each in status.pending]
    if status.stale:
        entries.append(Applied(FUNCTIONS, "functions", functions.checksum, breaking=False))
    if status.drift:
        entries.append(Applied(FUNCTIONS, "rights", functions.checksum, breaking=False))
    return entries


def command(schema: str) -> str:
    """Say how to bring a schema up to this version."""
    return "Run: pgflow migrate" + ("" if schema == SCHEMA else f" --schema {schema}")
