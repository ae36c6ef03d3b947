"""Notice a migration that breaks this code, as soon as it is announced."""

from __future__ import annotations

from pgflow.database.migration_files import migrations
from pgflow.database.statement import Statement
from pgflow.store import migration
from pgflow.store.migration import Applied
from pgflow.worker.chores.chore import SweepChore
from pgflow.worker.turns.turn import Turn

__all__ = ["CheckMigrations"]


class CheckMigrations(SweepChore[Applied | None]):
    """The worker drains before a breaking migration; `pgflow migrate` waits for that."""

    name = "check migrations"

    def statement(self, turn: Turn) -> Statement[Applied | None]:
        """Return the statement to send."""
        return migration.breaking(self.state.schema, len(migrations()))

    def on_answer(self, answer: Applied | None, turn: Turn) -> None:
        """Let the worker stop."""
        self.state.breaking_migration = answer or self.state.breaking_migration
