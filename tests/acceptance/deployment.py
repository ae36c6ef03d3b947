"""A database with the workflows of the test app `shop`, and the command `pgflow` run against it."""

from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from pgflow.core.models.instance import Instance
from pgflow.database.connect import connect
from pgflow.database.statement import run
from pgflow.store import instance
from tests.acceptance.command import environment, error_line
from tests.acceptance.command import run as run_command
from tests.conftest import Server

__all__ = ["APP", "ORDER", "TIMEOUT", "Deployment"]

APP = "tests.acceptance.shop:app"
TIMEOUT = 30.0  # seconds
ORDER = '{"item_count": 3}'


class Deployment:
    """A database with pgflow's schema, and the command run against it."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn

    @classmethod
    def create(cls, server: Server, migrated_database: Callable[[Server], str]) -> "Deployment":
        """Create a database with the schema."""
        return cls(migrated_database(server))

    def pgflow(
        self, *arguments: str, stdin: str | bytes = "", cwd: Path | None = None, **variables: str
    ) -> CompletedProcess[str]:
        """Run `pgflow` to its end, without an app unless `variables` has PGFLOW_APP."""
        content = stdin.encode() if isinstance(stdin, str) else stdin
        return run_command(*arguments, env=environment(PGFLOW_DSN=self.dsn, **variables), cwd=cwd, stdin=content)

    def ok(self, *arguments: str, **options: Any) -> str:
        """Run a command that must succeed without printing to stderr, and return its stdout."""
        done = self.pgflow(*arguments, **options)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    def refused(self, exit_code: int, *arguments: str, **options: Any) -> str:
        """Run a command that must fail with this exit code, and return its error line."""
        return error_line(self.pgflow(*arguments, **options), exit_code)

    def get(self, value: str, workflow: str = "OrderFlow") -> Instance:
        """Read an instance from the database."""
        with connect(self.dsn, "test") as conn:
            return run(conn, instance.get("pgflow", workflow=workflow, value=value))

    def until(self, value: str, condition: Callable[[Instance], bool], workflow: str = "OrderFlow") -> Instance:
        """Wait until an instance meets a condition, and return it."""
        with connect(self.dsn, "test") as conn:
            statement = instance.get("pgflow", workflow=workflow, value=value)
            attempts = Retrying(
                stop=stop_after_delay(TIMEOUT),
                wait=wait_fixed(0.02),
                retry=retry_if_result(lambda found: not condition(found)),
                retry_error_callback=lambda state: pytest.fail(f"the condition was not met: {state.outcome}"),
            )
            found: Instance = attempts(lambda: run(conn, statement))
        return found

    def until_status(self, value: str, status: str, workflow: str = "OrderFlow") -> Instance:
        """Wait until an instance has a status, and return it."""
        return self.until(value, lambda found: found.status == status, workflow)

    def count(self, table: str) -> int:
        """Count the rows of a table."""
        with connect(self.dsn, "test") as conn:
            ((rows,),) = conn.execute(f"select count(*) from pgflow.{table}".encode()).fetchall()  # noqa: S608 -- ours
        return int(rows)
