"""Each migration is written so that it can be applied to a busy database, killed, and applied again."""

from __future__ import annotations

import re

import pytest

from pgflow.database import files
from pgflow.database.migration_files import Migration, migrations

COMMENT = re.compile(r"--[^\n]*")


def text(migration: Migration) -> str:
    """Its statements, without comments."""
    return COMMENT.sub("", files.load(migration.path))


def created(migration: Migration) -> set[str]:
    """The tables that it makes, on which nobody can be at work yet."""
    return set(re.findall(r"create table pgflow\.(\w+)", text(migration)))


each_migration = pytest.mark.parametrize("migration", migrations(), ids=lambda each: each.name)


@each_migration
def test_an_index_on_a_table_that_is_there_is_made_and_dropped_concurrently(migration: Migration) -> None:
    made = re.findall(r"create (?:unique )?index (?:if not exists )?\w+ on pgflow\.(\w+)", text(migration))
    assert set(made) <= created(migration)
    assert not re.findall(r"drop index (?!concurrently)", text(migration))


@each_migration
def test_what_is_done_outside_a_transaction_may_be_done_twice(migration: Migration) -> None:
    if not migration.transactional:
        for name in re.findall(r"create (?:unique )?index concurrently (?:if not exists )?(\w+)", text(migration)):
            # One that was killed leaves an index that is not valid, and that "if not exists" would take for good.
            assert f"drop index concurrently if exists pgflow.{name};" in text(migration)
        assert not re.findall(r"\b(?:add column|create table|drop \w+ concurrently) (?!if )", text(migration))


@each_migration
def test_what_reads_a_whole_table_does_not_do_so_under_a_lock_that_shuts_everybody_out(migration: Migration) -> None:
    constraints = re.findall(r"add constraint[^;]*", text(migration))
    assert [each for each in constraints if each.count("add constraint") != each.count("not valid")] == []
    assert migration.transactional <= ("validate constraint" not in text(migration))
    assert not re.findall(
        r"\bset not null\b|alter column \w+ (?:set data )?type\b|\bcluster\b|vacuum full", text(migration)
    )


@each_migration
def test_a_fresh_install_which_has_no_functions_yet_can_apply_it(migration: Migration) -> None:
    assert not re.findall(r"drop (?:function|view) (?!if exists)", text(migration))
