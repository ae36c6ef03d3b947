"""The pytest plugin as a user has it: a project of its own, with pytest in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from pgflow import Pgflow
from tests.conftest import Server

TIMEOUT = 120.0

PROJECT = {
    "shop.py": """
        import asyncio

        from pgflow import Context, Done, Ok, Pgflow, Unique, Workflow, step

        @step(events=("sent",), transactional=True)
        def bill(ctx: Context[dict]) -> Ok:
            ctx.conn.execute("insert into bills values (%s)", [ctx.value])
            return Ok("sent")

        class Billing(Workflow[dict], unique=Unique("bill")):
            initial = bill
            transitions = {bill: {"sent": Done}}

        app = Pgflow("postgresql://nowhere.invalid/production", workflows=[Billing])

        def order(value, count):
            Billing.start(value, {"count": count})

        async def aorder(value, count):
            await Billing.astart(value, {"count": count})
    """,
    "conftest.py": """
        import psycopg
        import pytest
        from shop import app

        @pytest.fixture(scope="session")
        def pgflow_prepare():
            def prepare(dsn):
                with psycopg.connect(dsn) as conn:
                    conn.execute("create table bills (value text)")
            return prepare

        @pytest.fixture
        def pgflow_options():
            return {"workflows": app.workflows}
    """,
    "test_shop.py": """
        import asyncio

        import psycopg
        import pytest
        import shop
        from pgflow.testing import adrain, assert_enqueued, drain, refute_enqueued

        @pytest.mark.parametrize("time", range(3))
        def test_each_test_has_a_database_of_its_own_with_the_projects_tables(pgflow_app, time):
            shop.order("a", 3)
            assert drain(pgflow_app).completed == 1
            with psycopg.connect(pgflow_app.dsn) as conn:
                assert conn.execute("select value from bills").fetchall() == [("a",)]

        def test_async_code_needs_no_plugin(pgflow_app):
            async def main():
                await shop.aorder("a", 3)
                assert (await adrain(pgflow_app)).completed == 1
                assert (await shop.Billing.aget("a")).status == "completed"
            asyncio.run(main())

        def test_a_transaction_is_rolled_back(pgflow_app, pgflow_conn):
            shop.Billing.start("a", {"count": 3}, conn=pgflow_conn)
            assert_enqueued(shop.Billing, "a", conn=pgflow_conn)
            refute_enqueued(shop.Billing)

        def test_bills_survive_crashes(pgflow_app, pgflow_crashes):
            shop.order("a", 3)
            drain(pgflow_app)
            with psycopg.connect(pgflow_app.dsn) as conn:
                assert conn.execute("select value from bills").fetchall() == [("a",)]
    """,
    "failing.py": """
        import shop
        from pgflow.testing import assert_enqueued, drain

        def test_fails(pgflow_app, pgflow_crashes):
            shop.order("a", 4)
            assert_enqueued(shop.Billing, "a", count=3)

        def test_fails_after_crashes(pgflow_app, pgflow_crashes):
            shop.order("a", 4)
            drain(pgflow_app)
            assert pgflow_crashes.repeated == []
    """,
}


class Project:
    """A folder with the files of a project."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, text in PROJECT.items():
            (folder / name).write_text(textwrap.dedent(text))

    def pytest(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run pytest in it, with warnings as errors."""
        ours = ("PYTEST", "PGFLOW", "PYTHONPATH")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        return subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", *arguments],
            cwd=self.folder,
            env={**environment, **variables},
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A small project that uses the fixtures."""
    return Project(tmp_path)


@pytest.mark.slow
def test_the_tests_of_a_project_pass_on_a_server_of_their_own(project: Project) -> None:
    done = project.pytest()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 passed" in done.stdout


@pytest.mark.slow
def test_several_processes_share_a_given_server_and_leave_nothing(
    project: Project, server: Server, new_database: Callable[..., str]
) -> None:
    dsn = new_database(server)
    query = "select count(*) from pg_database"
    with psycopg.connect(dsn, autocommit=True) as conn:
        before = conn.execute(query).fetchone()
        done = project.pytest("-n2", f"--pgflow-dsn={dsn}")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "6 passed" in done.stdout
        assert conn.execute(query).fetchone() == before


@pytest.mark.slow
def test_a_failure_shows_what_is_enqueued_and_where_workers_died(project: Project, server: Server) -> None:
    done = project.pytest("failing.py", PGFLOW_TEST_DSN=server.dsn)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "2 failed" in done.stdout
    assert 'Billing a input={"count": 3} is not enqueued. There is:' in done.stdout
    assert "  Billing bill::a queue=default at=" in done.stdout
    assert "  Billing bill::a bill: ran 2 times; died before it began; after it ran" in done.stdout


@pytest.mark.slow
def test_a_role_that_may_not_create_databases_is_named(
    project: Project, server: Server, new_database: Callable[..., str]
) -> None:
    with psycopg.connect(new_database(server), autocommit=True) as conn:
        conn.execute("create role pgflow_poor login")
        try:
            dsn = psycopg.conninfo.make_conninfo(conn.info.dsn, user="pgflow_poor")
            done = project.pytest("-k", "rolled", f"--pgflow-dsn={dsn}")
        finally:
            conn.execute("drop role pgflow_poor")
    assert done.returncode == 1
    assert "the role of the tests may not create databases" in done.stdout
    assert "alter role … createdb" in done.stdout


def test_a_project_that_does_not_use_the_fixtures_imports_next_to_nothing(tmp_path: Path) -> None:
    (tmp_path / "test_other.py").write_text(
        "import sys\n"
        "def test_imports():\n"
        "    roots = ('pgflow', 'psycopg', 'pydantic')\n"
        "    assert sorted(name for name in sys.modules if name.split('.')[0] in roots) == [\n"
        "        'pgflow', 'pgflow.testing', 'pgflow.testing.plugin']\n"
    )
    done = Project(tmp_path).pytest("test_other.py", "--noconftest")
    assert done.returncode == 0, done.stdout


def test_only_the_plugin_imports_pytest() -> None:
    names = "import sys, pgflow.testing as t; [getattr(t, name) for name in t.__all__]; print('pytest' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", names], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"


def test_the_app_of_a_test_takes_the_calls_of_its_workflows_until_it_ends(pgflow_app: Pgflow) -> None:
    for workflow in pgflow_app.workflows:
        assert workflow.bound() is pgflow_app
