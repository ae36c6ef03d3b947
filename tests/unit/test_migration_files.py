"""Each migration can be applied to a busy database, killed, and applied again."""

from __future__ import annotations

import re

import pytest

from pgflow.database import files
from pgflow.database.migration_files import Migration, migrations

COMMENT = re.compile(r"--[^\n]*")


def text(migration: Migration) -> str:
    """Return its statements, without comments."""
    return COMMENT.sub("", files.load(migration.path))


def created(migration: Migration) -> set[str]:
    """Return the tables that it creates, which no session uses yet."""
    return set(re.findall(r"create table pgflow\.(\w+)", text(migration)))


each_migration = pytest.mark.parametrize("migration", migrations(), ids=lambda each: each.name)


@each_migration
def test_an_index_on_an_existing_table_is_created_and_dropped_concurrently(migration: Migration) -> None:
    made = re.findall(r"create (?:unique )?index (?:if not exists )?\w+ on pgflow\.(\w+)", text(migration))
    assert set(made) <= created(migration)
    assert not re.findall(r"drop index (?!concurrently)", text(migration))


@each_migration
def test_a_statement_outside_a_transaction_is_idempotent(migration: Migration) -> None:
    if not migration.transactional:
        for name in re.findall(r"create (?:unique )?index concurrently (?:if not exists )?(\w+)", text(migration)):
            # A killed build leaves an invalid index, which "if not exists" would accept.
            assert f"drop index concurrently if exists pgflow.{name};" in text(migration)
        assert not re.findall(r"\b(?:add column|create table|drop \w+ concurrently) (?!if )", text(migration))


@each_migration
def test_a_whole_table_is_not_scanned_under_an_exclusive_lock(migration: Migration) -> None:
    constraints = re.findall(r"add constraint[^;]*", text(migration))
    assert [each for each in constraints if each.count("add constraint") != each.count("not valid")] == []
    assert migration.transactional <= ("validate constraint" not in text(migration))
    assert not re.findall(
        r"\bset not null\b|alter column \w+ (?:set data )?type\b|\bcluster\b|vacuum full", text(migration)
    )


@each_migration
def test_a_fresh_install_without_functions_can_apply_it(migration: Migration) -> None:
    assert not re.findall(r"drop (?:function|view) (?!if exists)", text(migration))
