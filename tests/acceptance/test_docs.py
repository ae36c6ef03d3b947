"""Each block of README.md and of the guides runs as printed, on a real server, and prints what the page shows."""

import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from pgflow.core.models.instance import Instance
from pgflow.database.connect import connect
from pgflow.database.statement import run
from pgflow.embedded import EmbeddedPostgres
from pgflow.migrations.migrate import up
from pgflow.store import instance
from tests.acceptance.pages import BLOCK_TIMEOUT, PAGES, Block, Page, Workspace, masked, needed_files
from tests.conftest import GIVEN_DSN, Server

# These pages start on an empty database and migrate it; the reader of any other page has done so.
BEGINNINGS = {"README.md", "pgflow/docs/getting-started.md"}
MODEL = "model"

# Each block runs unless it is listed here, with the reason.
NOT_RUN = {
    "bin/test": "it would run this test, and that one the next",
    "pgflow web --app shop_web:flows": "it serves until it is interrupted; tests/web has a browser",
    'curl -H "Authorization: Bearer $PGFLOW_WEB_TOKEN" 127.0.0.1:8080/api/v1/instances?q=state:failed': "as above",
    "export PGFLOW_DSN='postgresql://user:password@host:5432/database'": "PGFLOW_DSN is set to the test's database",
}
NOT_COMMANDS = {
    "picture": "a drawing",
    "tree": "compared with the folders by another test",
    "output": "of a test that fails, which tests/testing runs",
}
# Commands that run in place of the printed ones.
STAND_IN = {
    "bin/demo": "pgflow demo 2>&1",  # all that the script does once .venv exists, which would need a network
    "pgflow bench chain": "pgflow bench chain --count 50 --repeat 2 2> /dev/null",  # smaller, and without the head
}
# Commands whose output varies: only the words are compared.
VARYING = {
    "pgflow job list send_receipt --status completed": "times",
    "bin/demo": "counts and times",
    "pgflow bench chain": "figures, and the width of columns",
    "pgflow show OrderFlow abc124": "times, and the width of a column",
    "pgflow doctor --app shop:app": "the server's version, and how many migrations there are",
    "python -m pytest -q conftest.py test_orders.py": "the duration",
}


@pytest.fixture(scope="module")
def durable_server() -> Iterator[Server]:
    """A server with fsync: programs and the doctor warn about the tests' other servers, which have none.

    Its database MODEL has the schema.
    """
    with EmbeddedPostgres() as postgres:
        with connect(postgres.create_database(MODEL), role="migrate") as conn:
            up(conn)
        yield Server(postgres.dsn, postgres.version)


@pytest.fixture
def dsn(documented: Page, request: pytest.FixtureRequest) -> str:
    """The DSN of the reader's database."""
    is_empty = documented.name in BEGINNINGS
    if GIVEN_DSN:
        kind = "new_database" if is_empty else "migrated_database"
        return str(request.getfixturevalue(kind)(request.getfixturevalue("server")))
    durable: Server = request.getfixturevalue("durable_server")
    return durable.create_database(Path(documented.name).stem, None if is_empty else MODEL)


@pytest.mark.slow
@pytest.mark.parametrize("documented", [page for page in PAGES if page.blocks], ids=str)
def test_every_block_runs_as_printed_and_prints_what_the_page_shows(documented: Page, tmp_path: Path, dsn: str) -> None:
    workspace = Workspace(tmp_path, dsn)
    workspace.prepare(needed_files(documented))
    session = Session(workspace, documented)
    try:
        for block in documented.blocks:
            session.take(block)
    finally:
        drop_roles(documented, dsn)


def test_the_exceptions_name_blocks_that_exist() -> None:
    blocks = [block for page in PAGES for block in page.blocks]
    commands = {block.command for block in blocks if block.language == "sh"}
    labels = {block.label for block in blocks if block.language == "text"} - {""}
    assert labels == set(NOT_COMMANDS)
    assert {*NOT_RUN, *STAND_IN, *VARYING, *DRIVEN} <= commands
    assert {page.name for page in PAGES} >= BEGINNINGS


def drop_roles(documented: Page, dsn: str) -> None:
    """Drop the roles that the page creates: unlike the database they would stay on the server."""
    with psycopg.connect(dsn) as conn:
        for name in re.findall(r"^create role (\w+)", documented.text, re.MULTILINE):
            if conn.execute("select from pg_roles where rolname = %s", [name]).fetchone() is not None:
                conn.execute(f"drop owned by {name}; drop role {name}".encode())


class Session:
    """Runs the blocks of a page from top to bottom."""

    def __init__(self, workspace: Workspace, documented: Page) -> None:
        self.workspace = workspace
        self.output = ""  # of the last command
        self.command = ""  # its first line
        self.last_of = {block.label: block for block in documented.blocks if block.language == "python"}
        self.shell = "".join(block.text for block in documented.blocks if block.language == "sh")

    def take(self, block: Block) -> None:
        """Run the block, or compare the output that it shows."""
        match block.language, block.label:
            case "text", "":
                self.compare(block)
            case "text", label:
                assert label in NOT_COMMANDS, block
            case "python", name:
                with (self.workspace.folder / name).open("a") as file:
                    file.write(block.text)
                if block == self.last_of[name] and not self.is_used_in_shell(name):
                    self.run(block, f"python {name}")
            case "sql", "":
                with psycopg.connect(self.workspace.dsn, autocommit=True) as conn:
                    conn.execute(block.text.encode())
            case "sh", "":
                self.run_shell(block)
            case _:
                pytest.fail(f"{block}: a block of {block.language} {block.label} cannot be run")

    def is_used_in_shell(self, name: str) -> bool:
        """Whether a shell block runs the file, or an app in it."""
        return name in self.shell or f"{Path(name).stem}:app" in self.shell

    def run_shell(self, block: Block) -> None:
        """Run a block of shell."""
        if block.command in NOT_RUN:
            return
        if block.command.startswith("python -c"):
            start_throwaway_server(self.workspace, block)
        elif block.command in DRIVEN:
            with worker(self.workspace, block):
                DRIVEN[block.command](self.workspace.dsn)
        else:
            self.run(block, STAND_IN.get(block.command, block.text))

    def run(self, block: Block, text: str) -> None:
        """Run shell code, which must succeed and print nothing on stderr."""
        done = self.workspace.sh(text)
        assert (done.returncode, done.stderr) == (0, ""), f"{block}: {done}"
        self.output, self.command = done.stdout, block.command

    def compare(self, block: Block) -> None:
        """Compare the block with the output of the last command; a line of `...` stands for any number of lines."""
        read = masked if self.command in VARYING else str.splitlines
        printed = iter(read(self.output))
        skipping = False
        for shown in read(block.text):
            if shown == "...":
                skipping = True
                continue
            line = next((each for each in printed if each == shown), None) if skipping else next(printed, None)
            assert line == shown, f"{block}: {self.output}"
            skipping = False
        assert list(printed) == [], block


def start_throwaway_server(workspace: Workspace, block: Block) -> None:
    """Run the line that starts a server, connect with the DSN that it prints, and press Enter."""
    line = block.text.replace("print(s.dsn)", "print(s.dsn, flush=True)")  # as it does on a terminal
    with workspace.process(line) as process:
        assert process.stdout is not None
        dsn = process.stdout.readline().strip()
        assert dsn, workspace.stderr
        with psycopg.connect(dsn) as conn:
            assert conn.execute("select 1").fetchone() == (1,)
        process.communicate("\n", timeout=BLOCK_TIMEOUT)
        assert process.returncode == 0, block


@contextmanager
def worker(workspace: Workspace, block: Block) -> Iterator[None]:
    """Run a worker, press Ctrl-C, and check its exit code."""
    with workspace.process(block.text) as process:
        yield
        process.send_signal(signal.SIGINT)
        process.wait(BLOCK_TIMEOUT)
        assert process.returncode == 0, (block, workspace.stderr)


def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition is true."""
    Retrying(retry=retry_if_result(lambda met: not met), wait=wait_fixed(0.05), stop=stop_after_delay(BLOCK_TIMEOUT))(
        condition
    )


class Instances:
    """Starts, signals and reads the instances of one workflow."""

    def __init__(self, dsn: str, workflow: str) -> None:
        self.dsn = dsn
        self.workflow = workflow

    def query(self, query: str, *values: Any) -> Any:
        """Return the first column of the first row."""
        with connect(self.dsn, "test") as conn:
            row = conn.execute(query.encode(), values).fetchone()
        return row and row[0]

    def get(self, value: str) -> Instance:
        """Read an instance."""
        with connect(self.dsn, "test") as conn:
            return run(conn, instance.get("pgflow", workflow=self.workflow, value=value))

    def start(self, value: str, order: str) -> None:
        """Start an instance."""
        self.query("select pgflow.start(%s, %s, %s::text::jsonb)", self.workflow, value, order)

    def signal(self, value: str, event: str) -> str:
        """Send a signal."""
        return str(self.query("select pgflow.resume(%s, %s, %s)", self.workflow, value, event))

    def ended(self, value: str) -> Instance:
        """Wait for the end of an instance."""
        until(lambda: not self.get(value).is_active)
        return self.get(value)


def run_first_workflow(dsn: str) -> None:
    """An order that was started before there was a worker is completed."""
    assert Instances(dsn, "OrderFlow").ended("abc124").status == "completed"


def run_shop(dsn: str) -> None:
    """Order by order, shop.py does what workflows.md describes; many.py has started a hundred of them."""
    shop = Instances(dsn, "ShopFlow")
    for card in ("expired", "stolen", "empty", "slow"):
        shop.start(card, f'{{"item_count": 1, "card": "{card}"}}')
    assert shop.ended("m-100").steps == {"check_order": {}}  # refused: more than CheckOrder(most=80) allows
    expired, stolen, empty = (shop.ended(card) for card in ("expired", "stolen", "empty"))
    assert (expired.status, stolen.status, empty.status) == ("failed", "failed", "completed")
    assert expired.error is not None
    assert (expired.error["type"], expired.error["attempt"]) == ("CardExpired", 1)
    assert stolen.error is not None
    assert (stolen.error["reason"], stolen.error["attempt"]) == ("the bank keeps the card", 1)
    assert [entry.step for entry in empty.history] == ["check_order", "charge", "cool_off"]

    shop.signal("slow", "courier_arrived")
    shop.signal("m-2", "courier_arrived")
    slow, small = shop.ended("slow"), shop.ended("m-2")
    assert {entry.step: entry.attempt for entry in slow.history}["charge"] == 3
    assert small.status == "completed"
    assert small.steps["mail_receipt"] == {"number": "r-m-2"}
    assert small.metadata == {"bank": "b-1"}
    assert [entry.step for entry in small.history].count("pack") == 1

    until(lambda: [each.step for each in shop.get("m-50").waiting_for] == ["approval"])
    assert shop.signal("m-50", "approved") == "delivered"
    assert shop.signal("m-50", "courier_arrived") in ("delivered", "kept")
    large = shop.ended("m-50")
    assert [entry.step for entry in large.history][-2:] == ["approval", "courier"]

    until(lambda: shop.query("select count(*) = 81 from pgflow.step_results where step = 'reserve'"))
    assert shop.query("select count from stock") == 10_000 - sum(range(1, 81)) - 1  # each of them once


def run_two_queues(dsn: str) -> None:
    """The worker registers itself with both queues."""
    shop = Instances(dsn, "ShopFlow")
    until(lambda: shop.query("select count(*) = 1 from pgflow.workers"))
    assert sorted(shop.query("select queues from pgflow.workers")) == ["default", "mail"]


# How a worker's block is driven, by its command.
DRIVEN = {
    "pgflow worker --app flow:app": run_first_workflow,
    "pgflow worker --app shop:app": run_shop,
    "pgflow worker --app shop:app --queue default=10 --queue mail=2": run_two_queues,
}
