"""What README.md prints runs as printed, on a real server, and says what README shows."""

import re
import signal
import subprocess
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
from pgflow.store import instance
from tests.acceptance.readme import PATIENCE, README, Block, Desk, blocks, masked
from tests.conftest import GIVEN_DSN, Server

# Each block of README is run unless it stands here, with the reason why not.
NOT_RUN = {
    "bin/test": "it would run this test, and that one the next",
    "export PGFLOW_DSN='postgresql://user:password@host:5432/database'": "the reader's database; ours is set already",
}
NOT_COMMANDS = {
    "picture": "drawn for people",
    "tree": "compared with the folders by a test of its own",
}
# What runs in the place of a block.
STAND_IN = {
    "bin/demo": "pgflow demo 2>&1",  # all that the script does once .venv is there, which would need a network
    "pgflow bench chain": "pgflow bench chain --count 50 --repeat 2 2> /dev/null",  # a little, and without the head
}
# Whose output is another one each time: of these only the words are compared.
VARYING = {
    "bin/demo": "counts and times",
    "pgflow bench chain": "figures, and the width of columns",
    "pgflow show OrderFlow abc124": "times, and the width of a column",
    "pgflow doctor --app shop:app": "the server's version, and how many migrations there are",
}


@pytest.fixture
def durable(server: Server, new_database: Callable[..., str]) -> Iterator[str]:
    """The dsn of a database in which the doctor finds nothing wrong: the tests' own servers are not durable."""
    if GIVEN_DSN:
        yield new_database(server)
        return
    with EmbeddedPostgres() as postgres:
        yield postgres.dsn


@pytest.mark.slow
def test_every_block_runs_as_printed_and_says_what_it_shows(tmp_path: Path, durable: str) -> None:
    desk = Desk(tmp_path, durable)
    desk.prepare()
    walk = Walk(desk)
    try:
        for block in blocks():
            walk.take(block)
    finally:
        drop_roles(desk)
    walk.end()


def drop_roles(desk: Desk) -> None:
    """Drop the roles that README makes: unlike the database they would stay on the server."""
    with psycopg.connect(desk.dsn) as conn:
        for name in re.findall(r"^create role (\w+)", README, re.MULTILINE):
            if conn.execute("select from pg_roles where rolname = %s", [name]).fetchone() is not None:
                conn.execute(f"drop owned by {name}; drop role {name}".encode())


class Walk:
    """Goes through README from top to bottom, as its reader does."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.said = ""  # by the block before
        self.command = ""  # its first line
        self.last_of = {block.label: block for block in blocks() if block.language == "python"}
        self.typed = "".join(block.text for block in blocks() if block.language == "sh")
        self.excused: set[str] = set()

    def take(self, block: Block) -> None:
        """Do what the block says, or compare what it shows."""
        match block.language, block.label:
            case "text", "":
                self.compare(block)
            case "text", label:
                self.excused.add(label)
                assert label in NOT_COMMANDS, block
            case "python", name:
                with (self.desk.folder / name).open("a") as file:
                    file.write(block.text)
                if block == self.last_of[name] and name not in self.typed:
                    self.run(block, f"python {name}")
            case "sql", "":
                with psycopg.connect(self.desk.dsn, autocommit=True) as conn:
                    conn.execute(block.text.encode())
            case "sh", "":
                self.type(block)
            case _:
                pytest.fail(f"{block}: nobody knows how to run {block.language} {block.label}")

    def type(self, block: Block) -> None:
        """Run a block of shell."""
        if block.command in NOT_RUN:
            self.excused.add(block.command)
        elif block.command.startswith("python -c"):
            throwaway_server(self.desk, block)
        elif block.command.startswith("pgflow worker"):
            with worker(self.desk, block):
                DRIVEN[block.command.split()[3]](self.desk.dsn)
        else:
            self.excused.add(block.command)
            self.run(block, STAND_IN.get(block.command, block.text))

    def run(self, block: Block, text: str) -> None:
        """Run a line of shell, which must succeed and say nothing on stderr."""
        done = self.desk.sh(text)
        assert (done.returncode, done.stderr) == (0, ""), f"{block}: {done}"
        self.said, self.command = done.stdout, block.command

    def compare(self, block: Block) -> None:
        """Look for the lines that are shown in those that were said; between them `...` stands for any."""
        read = masked if self.command in VARYING else str.splitlines
        said = iter(read(self.said))
        anything = False
        for shown in read(block.text):
            if shown == "...":
                anything = True
                continue
            line = next((each for each in said if each == shown), None) if anything else next(said, None)
            assert line == shown, f"{block}: {self.said}"
            anything = False
        assert list(said) == [], block

    def end(self) -> None:
        """Nothing is excused that no longer stands in README."""
        assert {*NOT_RUN, *NOT_COMMANDS, *STAND_IN, *VARYING} <= self.excused


def throwaway_server(desk: Desk, block: Block) -> None:
    """Run the line that starts a server, connect to it as it says, and press Enter."""
    line = block.text.replace("print(s.dsn)", "print(s.dsn, flush=True)")  # as it does on a terminal
    with desk.process(line) as process:
        assert process.stdout is not None
        dsn = process.stdout.readline().strip()
        assert dsn, (desk.folder / "said.txt").read_text()
        with psycopg.connect(dsn) as conn:
            assert conn.execute("select 1").fetchone() == (1,)
        process.communicate("\n", timeout=PATIENCE)
        assert process.returncode == 0, block


@contextmanager
def worker(desk: Desk, block: Block) -> Iterator[subprocess.Popen[str]]:
    """Run a worker, stop it as README says, and see it end well."""
    with desk.process(block.text) as process:
        yield process
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE)
        assert process.returncode == 0, (block, (desk.folder / "said.txt").read_text())


def until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so."""
    Retrying(retry=retry_if_result(lambda so: not so), wait=wait_fixed(0.05), stop=stop_after_delay(PATIENCE))(is_so)


class Looking:
    """Sends signals to the instances of one workflow, and sees what becomes of them."""

    def __init__(self, dsn: str, workflow: str) -> None:
        self.dsn = dsn
        self.workflow = workflow

    def ask(self, query: str, *values: Any) -> Any:
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
        self.ask("select pgflow.start(%s, %s, %s::text::jsonb)", self.workflow, value, order)

    def signal(self, value: str, event: str) -> str:
        """Send a signal."""
        return str(self.ask("select pgflow.resume(%s, %s, %s)", self.workflow, value, event))

    def ended(self, value: str) -> Instance:
        """Wait for the end of an instance."""
        until(lambda: not self.get(value).is_active)
        return self.get(value)


def first_workflow(dsn: str) -> None:
    """What README says of flow.py: an order that was started before there was a worker is completed."""
    assert Looking(dsn, "OrderFlow").ended("abc124").status == "completed"


def all_it_can_do(dsn: str) -> None:
    """What README says of shop.py, order by order; a hundred of them have been started by calls.py."""
    shop = Looking(dsn, "ShopFlow")
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

    until(lambda: shop.ask("select count(*) = 81 from pgflow.step_results where step = 'reserve'"))
    assert shop.ask("select count from stock") == 10_000 - sum(range(1, 81)) - 1  # each of them once


DRIVEN = {"flow:app": first_workflow, "shop:app": all_it_can_do}
