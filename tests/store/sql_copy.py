"""Make migrations that do not exist, in a copy of sql/ that the code takes for the real one: the fixture `sql_copy`."""

from __future__ import annotations

from pathlib import Path

from pgflow.database import files, migration_files


def forget() -> None:
    """Read everything anew."""
    for cached in (files.load, migration_files.migrations, migration_files.functions):
        cached.cache_clear()


def add_migration(sql_copy: Path, text: str) -> str:
    """Add the next migration, and return its file's name."""
    number = len(list((sql_copy / "migrations").iterdir())) + 1
    name = f"{number:04}_extra.sql"
    (sql_copy / "migrations" / name).write_text(text)
    forget()
    return name
