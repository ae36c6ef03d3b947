"""Add migrations to a copy of sql/ that the code uses instead of the original: the fixture `sql_copy`."""

from __future__ import annotations

from pathlib import Path

from pgflow.database import files, migration_files


def clear_caches() -> None:
    """Make the code read all files again."""
    for cached in (files.load, migration_files.migrations, migration_files.functions):
        cached.cache_clear()


def add_migration(sql_copy: Path, text: str) -> str:
    """Add the next migration, and return the name of its file."""
    number = len(list((sql_copy / "migrations").iterdir())) + 1
    name = f"{number:04}_extra.sql"
    (sql_copy / "migrations" / name).write_text(text)
    clear_caches()
    return name
