"""`pgflow start`, `resume`, `cancel`, `retry`, `list` and `show` as people and scripts run them, with a real worker."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import IO, Any

import pytest
from tenacity import Retrying, retry_if_result, stop_after_delay, wait_fixed

from pgflow.core.models.instance import Instance
from pgflow.database.connect import connect
from pgflow.database.statement import run
from pgflow.migrations.migrate import up
from pgflow.store import instance
from tests.conftest import Server

CHECKOUT = Path(__file__).parents[2]
RUN = "from pgflow.cli import main; main()"
APP = "tests.acceptance.shop:app"
PATIENCE = 30.0  # seconds
ORDER = '{"item_count": 3}'

numbers = count(1)


def environment(**more: str) -> dict[str, str]:
    """Ours without what would point at a database, or at colours."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "DATABASE_URL"))}
    return {**kept, "PYTHONPATH": str(CHECKOUT), **more}


class Shop:
    """A database with pgflow in it that knows the workflows of the app, and the command to look after it."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn

    def pgflow(self, *arguments: str, stdin: str | bytes = "", **more: str) -> subprocess.CompletedProcess[str]:
        """Run the command to its end, without an app unless `more` has PGFLOW_APP."""
        done = subprocess.run(
            [sys.executable, "-c", RUN, *arguments],
            capture_output=True,
            check=False,
            env=environment(PGFLOW_DSN=self.dsn, **more),
            input=stdin.encode() if isinstance(stdin, str) else stdin,
            timeout=60,
        )
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(), done.stderr.decode(errors="replace")
        )

    def ok(self, *arguments: str, **more: Any) -> str:
        """Run the command, which must succeed and say nothing on stderr, and return what it prints."""
        done = self.pgflow(*arguments, **more)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    def refused(self, exit_code: int, *arguments: str, **more: Any) -> str:
        """Run the command, which must fail as it should, and return the one line that it says about it."""
        done = self.pgflow(*arguments, **more)
        assert (done.returncode, done.stdout) == (exit_code, ""), done
        (line,) = done.stderr.splitlines()
        assert line.startswith("pgflow: ")
        assert "internal error" not in line
        assert "Traceback" not in line
        return line

    def get(self, value: str, workflow: str = "OrderFlow") -> Instance:
        """Read an instance past the command."""
        with connect(self.dsn, "test") as conn:
            return run(conn, instance.get("pgflow", workflow=workflow, value=value))

    def until(self, value: str, holds: Callable[[Instance], bool], workflow: str = "OrderFlow") -> Instance:
        """Wait until something holds for an instance."""
        with connect(self.dsn, "test") as conn:
            statement = instance.get("pgflow", workflow=workflow, value=value)
            attempts = Retrying(
                stop=stop_after_delay(PATIENCE),
                wait=wait_fixed(0.02),
                retry=retry_if_result(lambda found: not holds(found)),
                retry_error_callback=lambda state: pytest.fail(f"it did not come so far: {state.outcome}"),
            )
            found: Instance = attempts(lambda: run(conn, statement))
        return found

    def until_status(self, value: str, status: str, workflow: str = "OrderFlow") -> Instance:
        """Wait until an instance has a status."""
        return self.until(value, lambda found: found.status == status, workflow)

    def count(self, table: str) -> int:
        """Count the rows of a table."""
        with connect(self.dsn, "test") as conn:
            ((rows,),) = conn.execute(f"select count(*) from pgflow.{table}".encode()).fetchall()  # noqa: S608 -- ours
        return int(rows)


def stop(worker: subprocess.Popen[bytes]) -> int:
    """Ask a worker to end, and see to it."""
    worker.send_signal(signal.SIGTERM)
    try:
        return worker.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()
        raise


def start_worker(dsn: str, log: IO[bytes], *arguments: str) -> subprocess.Popen[bytes]:
    """Start a real worker of the shop."""
    return subprocess.Popen(
        [sys.executable, "-c", RUN, "worker", "--app", APP, "--poll", "0.1", *arguments],
        env=environment(PGFLOW_DSN=dsn),
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
    )


def new_shop(server: Server, new_database: Callable[..., str]) -> Shop:
    dsn = new_database(server)
    with connect(dsn, "migrate") as conn:
        up(conn)
    return Shop(dsn)


@pytest.fixture(scope="module")
def busy(server: Server, new_database: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A shop with a worker."""
    shop = new_shop(server, new_database)
    path = tmp_path_factory.mktemp("worker") / "log"
    with path.open("wb") as log:
        worker = start_worker(shop.dsn, log)
        try:
            for attempt in Retrying(stop=stop_after_delay(PATIENCE), wait=wait_fixed(0.05), reraise=True):
                with attempt:
                    assert worker.poll() is None, path.read_text()
                    assert shop.count("workers") == 1
            yield shop
        finally:
            code = stop(worker)
    assert code == 0, path.read_text()


@pytest.fixture(scope="module")
def closed(server: Server, new_database: Callable[..., str]) -> Shop:
    """A shop without a worker, in which workflows are known and nothing goes on."""
    shop = new_shop(server, new_database)
    shop.ok("start", "OrderFlow", "first", "--input", ORDER, "--app", APP)
    return shop


@pytest.fixture
def value() -> str:
    """A business value that no other test has."""
    return f"v{next(numbers)}"


# -- start


def test_an_order_goes_from_start_to_completed(busy: Shop, value: str) -> None:
    said = busy.ok("start", "OrderFlow", value, "--input", ORDER, "--app", APP)
    run = busy.get(value).run
    assert said == f"orderid::{value} run {run}\n"
    busy.until_status(value, "waiting")
    assert busy.ok("resume", "OrderFlow", value, "payment_confirmed", "--payload", '{"amount": 3}') == "delivered\n"
    done = busy.until_status(value, "completed")
    assert [(each.step, each.event) for each in done.history] == [
        ("validate_order", "valid"),
        ("charge", "payment_confirmed"),
        ("ship", "shipped"),
    ]
    assert done.steps["ship"] == {"paid": {"amount": 3}}


def test_plain_sql_starts_what_the_database_knows_without_an_app(busy: Shop, value: str) -> None:
    said = json.loads(busy.ok("start", "OrderFlow", value, "--input", ORDER, "--json"))
    assert said == {
        "schema_version": 1,
        "workflow": "OrderFlow",
        "id": f"orderid::{value}",
        "run": str(busy.get(value).run),
    }
    busy.until_status(value, "waiting")


def test_the_input_may_come_from_a_file_or_a_pipe(closed: Shop, tmp_path: Path, value: str) -> None:
    file = tmp_path / "order.json"
    file.write_text('\ufeff{\n  "item_count": 4\n}\n', encoding="utf-8")
    closed.ok("start", "OrderFlow", value, "--input", f"@{file}")
    assert closed.get(value).input == {"item_count": 4}
    closed.ok("start", "OrderFlow", value + "b", "--input", "-", stdin='{"item_count": 5}')
    assert closed.get(value + "b").input == {"item_count": 5}


def test_a_start_takes_tags_metadata_priority_and_a_time(closed: Shop, value: str) -> None:
    options = ("--tag", "a b", "--tag", "c", "--metadata", '{"from": "test"}', "--priority", "-5", "--version", "1")
    closed.ok("start", "OrderFlow", value, *options, "--delay", "1h30m")
    found = closed.get(value)
    assert (found.status, found.tags, found.metadata) == ("pending", ("orders", "a b", "c"), {"from": "test"})
    (wait,) = found.waiting_for
    assert wait.until is not None
    assert 5390 < (wait.until - found.created_at).total_seconds() < 5401
    closed.ok("start", "OrderFlow", value + "at", "--at", "2099-01-31T12:00:00+02:00")
    assert closed.get(value + "at").waiting_for[0].until == datetime.fromisoformat("2099-01-31T10:00:00Z")
    shown = closed.ok("show", "OrderFlow", value + "at")
    assert shown.endswith("\n\nvalidate_order: scheduled for 2099-01-31 10:00:00Z\n")


def test_what_is_already_running_is_refused_with_exit_code_7(closed: Shop, value: str) -> None:
    closed.ok("start", "OrderFlow", value, "--input", ORDER)
    for more in ({}, {"PGFLOW_APP": APP}):
        line = closed.refused(7, "start", "OrderFlow", value, "--input", ORDER, **more)
        run = closed.get(value).run
        assert line == (
            f"pgflow: OrderFlow 'orderid::{value}' is already running, in run {run}. "
            f"Show it with: pgflow show OrderFlow {value}"
        )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("{", "input is not valid JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ("", "input is not valid JSON: Expecting value"),
        ('{"item_count": NaN}', "input is not valid JSON: NaN is "),
        ('{"item_count": -Infinity}', "input is not valid JSON: -Infinity is "),
        ('{"name": "a\\u0000b"}', "input.name holds a NUL character"),
        ('{"\\u0000": 1}', "a key of input holds a NUL character"),
        ('{"name": ["\\ud800"]}', "input.name[0] holds a lone surrogate"),
        (f'{{"name": "{"x" * 65_536}"}}', "input is 65,547 bytes of JSON, more than the 65,536 allowed"),
        (f"{'[' * 65}{']' * 65}", "input is nested too deeply"),
        ("[" * 20_000, "input is "),
        ("1" * 5000, "input is not valid JSON: Exceeds the limit (4300 digits)"),
    ],
    ids=lambda text: repr(text[:20]),
)
def test_an_input_that_cannot_be_stored_is_one_line_and_exit_code_6(
    closed: Shop, value: str, given: str, said: str
) -> None:
    before = closed.count("instances")
    line = closed.refused(6, "start", "OrderFlow", value, "--input", given)
    assert line.startswith(f"pgflow: {said}")
    assert len(line) < 400
    assert closed.count("instances") == before


def test_bytes_that_are_no_text_are_refused(closed: Shop, tmp_path: Path, value: str) -> None:
    line = closed.refused(6, "start", "OrderFlow", value, "--input", "-", stdin=b'{"a": "\xff"}')
    assert line == "pgflow: input is not valid UTF-8 (byte 7)"
    line = closed.refused(6, "start", "OrderFlow", os.fsdecode(b"\xff"), "--input", "{}")
    assert line == "pgflow: VALUE is not valid UTF-8"
    file = tmp_path / "large.json"
    file.write_text(" " * 1_048_577)
    assert "input is longer than 1,048,576 bytes" in closed.refused(
        6, "start", "OrderFlow", value, "--input", f"@{file}"
    )


def test_the_apps_model_checks_the_input(closed: Shop, value: str) -> None:
    line = closed.refused(6, "start", "OrderFlow", value, "--input", '{"item_count": "many"}', "--app", APP)
    assert line.startswith("pgflow: OrderFlow: the input does not fit Order: item_count: ")
    line = closed.refused(6, "start", "OrderFlow", value, "--app", APP)
    assert "item_count: Field required" in line


@pytest.mark.parametrize(
    ("options", "exit_code", "said"),
    [
        (("--input", "@nowhere.json"), 2, "input: cannot read nowhere.json: No such file or directory"),
        (("--metadata", "[1]"), 6, "metadata must be a JSON object"),
        (("--metadata", "{"), 6, "metadata is not valid JSON"),
        (
            ("--delay", "10"),
            2,
            "'10' is not a valid duration: use a number with a unit, such as 30s, 5m, 1h30m or 2d. Units: ms,",
        ),
        (("--delay", "-1h"), 2, "'-1h' is not a valid duration"),
        (("--delay", "999999999w"), 2, "duration must be at most 3650 days, got 999999999w"),
        (("--at", "tomorrow"), 2, "'tomorrow' is not a valid timestamp"),
        (("--at", "2099-01-31T12:00:00"), 2, "timestamp '2099-01-31T12:00:00' has no time zone"),
        (("--version", "7"), 5, "OrderFlow has no version 7"),
        (("--version", "7", "--app", APP), 6, "OrderFlow is not a versioned workflow"),
        (("--app", "tests.acceptance.nowhere:app"), 2, "no module named 'tests.acceptance.nowhere' in "),
        (("--app", "tests.acceptance.shop:nothing"), 2, "'nothing' in module tests.acceptance.shop does not exist"),
        (("--app", "tests.acceptance.shop"), 2, "--app must have the form module:name, got 'tests.acceptance.shop'"),
        (("--schema", "Other"), 2, "'Other' is not a valid schema name"),
        (("--schema", "other"), 4, 'schema "other" holds no pgflow yet. Run: pgflow migrate --schema other'),
    ],
)
def test_a_wrong_option_is_one_line_and_its_exit_code(
    closed: Shop, value: str, options: tuple[str, ...], exit_code: int, said: str
) -> None:
    before = closed.count("instances")
    line = closed.refused(exit_code, "start", "OrderFlow", value, *options)
    assert line.startswith(f"pgflow: {said}")
    assert closed.count("instances") == before


@pytest.mark.parametrize("bad", ["", "a b", "a::b", "x" * 201, "tab\there"])
def test_a_value_that_no_instance_can_have_is_exit_code_6(closed: Shop, bad: str) -> None:
    assert "business value" in closed.refused(6, "start", "OrderFlow", bad, "--input", ORDER)


@pytest.mark.parametrize(
    "arguments",
    [
        ("start", "OrderFlow"),
        ("start",),
        ("start", "OrderFlow", "a", "--from", "-"),
        ("start", "OrderFlow", "--from", "-", "--input", "{}"),
        ("start", "OrderFlow", "a", "--delay", "1h", "--at", "2099-01-31T12:00:00Z"),
        ("start", "OrderFlow", "a", "--priority", "40000"),
        ("start", "OrderFlow", "a", "--version", "0"),
        ("list", "--status", "asleep"),
        ("list", "--limit", "0"),
        ("list", "--before", "x"),
        ("list", "--quiet", "--json"),
        ("resume", "OrderFlow", "a"),
    ],
)
def test_wrong_usage_is_exit_code_2(closed: Shop, arguments: tuple[str, ...]) -> None:
    done = closed.pgflow(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: pgflow ")
    assert "Traceback" not in done.stderr


def test_a_workflow_that_nobody_knows_is_exit_code_5_with_the_name_that_was_meant(closed: Shop) -> None:
    meant = "pgflow: no workflow named 'OrderFlw' is registered here. Did you mean OrderFlow?"
    assert closed.refused(5, "start", "OrderFlw", "a") == meant
    assert closed.refused(5, "start", "OrderFlw", "a", "--app", APP) == meant
    assert closed.refused(5, "resume", "OrderFlw", "a", "paid") == meant
    assert closed.refused(5, "cancel", "OrderFlw", "a") == meant
    assert closed.refused(5, "retry", "OrderFlw", "a") == meant
    assert closed.refused(5, "show", "OrderFlw", "a") == meant
    assert closed.refused(5, "list", "OrderFlw") == meant
    assert closed.refused(5, "show", "Nothing", "a").endswith("Registered workflows: EverythingFlow, OrderFlow.")


@pytest.mark.parametrize(
    ("source", "exit_code", "said"),
    [
        (
            "1 / 0",
            2,
            "importing flows failed: ZeroDivisionError: division by zero. Run again with --debug for the traceback.",
        ),
        ("import nowhere", 2, "importing flows failed: ModuleNotFoundError: No module named 'nowhere'."),
        ("def", 2, "importing flows failed: SyntaxError: invalid syntax (flows.py, line 1)."),
        ("import sys; sys.exit(3)", 2, "importing flows failed: SystemExit: 3."),
        (
            "from pgflow import Workflow\nclass Bad(Workflow): pass",
            6,
            "importing flows failed: DefinitionError: Bad",
        ),
        ("app = 1", 2, "'app' in module flows is of type int, not a Pgflow app. Apps in this module: none."),
    ],
)
def test_an_app_that_cannot_be_loaded_is_one_line(
    closed: Shop, tmp_path: Path, source: str, exit_code: int, said: str
) -> None:
    (tmp_path / "flows.py").write_text(source)
    arguments = ("start", "OrderFlow", "a", "--app", "flows:app")
    path = f"{CHECKOUT}{os.pathsep}{tmp_path}"
    line = closed.refused(exit_code, *arguments, PYTHONPATH=path)
    assert line.startswith(f"pgflow: {said}")
    done = closed.pgflow(*arguments, "--debug", PYTHONPATH=path)
    assert done.returncode == exit_code
    assert "Traceback" in done.stderr


# -- start --from


def test_a_file_of_orders_is_started_and_those_that_run_are_counted(closed: Shop, tmp_path: Path, value: str) -> None:
    file = tmp_path / "orders.jsonl"
    lines = [{"value": f"{value}-{number}", "input": {"item_count": number}} for number in range(2500)]
    file.write_text("\n".join(json.dumps(line) for line in [*lines, lines[0]]) + "\n\n")
    before = closed.count("instances")
    assert closed.ok("start", "OrderFlow", "--from", str(file), "--tag", "bulk") == "started 2,500, already running 1\n"
    assert closed.count("instances") == before + 2500
    assert closed.get(f"{value}-7").input == {"item_count": 7}
    assert closed.get(f"{value}-7").tags == ("orders", "bulk")
    again = closed.ok("start", "OrderFlow", "--from", "-", "--json", stdin=file.read_bytes(), PGFLOW_APP=APP)
    assert json.loads(again) == {
        "schema_version": 1,
        "workflow": "OrderFlow",
        "started": 0,
        "already_running": 2501,
    }


def test_a_file_that_is_empty_starts_nothing(closed: Shop) -> None:
    assert closed.ok("start", "OrderFlow", "--from", "-") == "started 0, already running 0\n"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "the line is not valid JSON"),
        ("[1]", "the line must be a JSON object"),
        ('{"input": {}}', 'missing key "value"'),
        ('{"value": "a b"}', "the business value 'a b' is refused"),
        ('{"value": 7}', "the business value 7 is refused"),
        ('{"value": "a", "inputs": {}}', "unknown key 'inputs'"),
        ('{"value": "a", "input": NaN}', "the line is not valid JSON: NaN is "),
        ('{"value": "a", "input": "\\u0000"}', "input holds a NUL character"),
        (f'{{"value": "a", "input": "{"x" * 70_000}"}}', "input is 70,002 bytes"),
        (f'{{"value": "a", "input": "{"x" * 1_100_000}"}}', "the line is longer than 1,048,576 bytes"),
        (b'{"value": "a", "input": "\xff"}', "the line is not valid UTF-8 (byte 25)"),
    ],
    ids=lambda text: repr(text[:30]),
)
def test_a_bad_line_is_named_by_its_number_and_nothing_is_started(
    closed: Shop, value: str, line: str | bytes, said: str
) -> None:
    good = "".join(f'{{"value": "{value}-{number}"}}\n' for number in range(1200)).encode()
    bad = line if isinstance(line, bytes) else line.encode()
    before = closed.count("instances")
    told = closed.refused(6, "start", "OrderFlow", "--from", "-", stdin=good + b"\n" + bad + b"\n" + good)
    assert told.startswith(f"pgflow: line 1202 of standard input: {said}")
    assert closed.count("instances") == before


def test_each_line_is_checked_by_the_apps_model_first(closed: Shop, tmp_path: Path, value: str) -> None:
    file = tmp_path / "orders.jsonl"
    file.write_text(f'{{"value": "{value}", "input": {{"item_count": 1}}}}\n{{"value": "{value}b", "input": {{}}}}\n')
    before = closed.count("instances")
    line = closed.refused(6, "start", "OrderFlow", "--from", str(file), "--app", APP)
    assert f"line 2 of {file}: OrderFlow: the input does not fit Order: item_count: Field required" in line
    assert closed.count("instances") == before
    line = closed.refused(2, "start", "OrderFlow", "--from", str(tmp_path))
    assert line == f"pgflow: --from: cannot read {tmp_path}: Is a directory"


def test_what_was_started_before_the_database_refused_is_told(closed: Shop, value: str) -> None:
    with connect(closed.dsn, "test") as conn:
        conn.execute(
            f"""
            create function refuse_{value}() returns trigger language plpgsql as $$ begin raise 'no more'; end $$;
            create trigger refuse_{value} before insert on pgflow.instances for each row
                when (new.id = 'orderid::{value}-1500') execute function refuse_{value}()
            """.encode()
        )
    lines = "".join(f'{{"value": "{value}-{number}"}}\n' for number in range(2000))
    before = closed.count("instances")
    done = closed.pgflow("start", "OrderFlow", "--from", "-", stdin=lines)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.splitlines() == [
        "started 1,000 of 2,000 before the error; those are not undone",
        "pgflow: PostgreSQL error: no more",
    ]
    assert closed.count("instances") == before + 1000


def test_a_bar_shows_on_a_terminal_only(closed: Shop, value: str) -> None:
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-c", RUN, "start", "OrderFlow", "--from", "-"],
            check=True,
            env=environment(PGFLOW_DSN=closed.dsn, TERM="xterm"),
            input="".join(f'{{"value": "{value}-{number}"}}\n' for number in range(1001)).encode(),
            stderr=theirs,
            stdout=subprocess.PIPE,
        )
        assert done.stdout == b"started 1,001, already running 0\n"
        assert b"100%" in os.read(ours, 100_000)
    finally:
        os.close(theirs)
        os.close(ours)


# -- resume


def test_a_signal_before_the_wait_is_kept_and_taken_by_it(busy: Shop, tmp_path: Path, value: str) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    busy.ok("start", "OrderFlow", value, "--input", json.dumps({"item_count": 1, "hold": str(hold)}))
    early = busy.pgflow("resume", "OrderFlow", value, "payment_confirmed", "--payload", "-", stdin='{"early": true}')
    assert (early.returncode, early.stdout) == (0, "kept\n")
    assert early.stderr == "no step is waiting for payment_confirmed: the signal is kept until one does\n"
    hold.unlink()
    assert busy.until_status(value, "completed").steps["charge"] == {"early": True}


def test_a_signal_to_the_whole_id_and_a_step_ends_its_wait(busy: Shop, value: str) -> None:
    busy.ok("start", "OrderFlow", value, "--input", ORDER)
    busy.until_status(value, "waiting")
    said = busy.ok("resume", "OrderFlow", f"orderid::{value}", "declined", "--step", "charge", "--json")
    assert json.loads(said) == {
        "schema_version": 1,
        "workflow": "OrderFlow",
        "value": f"orderid::{value}",
        "event": "declined",
        "signal": "delivered",
    }
    second = busy.refused(7, "resume", "OrderFlow", value, "declined")  # whether a worker has applied the first or not
    assert "has gone past the step that takes 'declined'" in second or "takes no more signals" in second
    done = busy.until_status(value, "completed")
    assert done.history[-1].event == "declined"
    line = busy.refused(7, "resume", "OrderFlow", value, "declined")
    assert f"OrderFlow 'orderid::{value}' is completed: it takes no more signals." in line


def test_a_signal_that_makes_no_sense_is_refused_and_changes_nothing(closed: Shop, value: str) -> None:
    closed.ok("start", "OrderFlow", value, "--input", ORDER)
    before = closed.count("signals")
    line = closed.refused(6, "resume", "OrderFlow", value, "paid")
    assert line.startswith("pgflow: OrderFlow takes no signal 'paid'. It takes: ")
    assert "payment_confirmed (charge)" in line
    line = closed.refused(5, "resume", "OrderFlow", value, "declined", "--step", "nowhere")
    assert line.startswith("pgflow: OrderFlow has no step 'nowhere'. It has: ")
    line = closed.refused(6, "resume", "OrderFlow", value, "declined", "--step", "done")
    assert "step 'done' takes no signal 'declined'" in line
    for payload, said in (
        ("{", "is not valid JSON"),
        ("NaN", "is not valid JSON: NaN is "),
        ('"\\u0000"', "holds a NUL character"),
    ):
        line = closed.refused(6, "resume", "OrderFlow", value, "declined", "--payload", payload)
        assert line.startswith("pgflow: payload ")
        assert said in line
    line = closed.refused(5, "resume", "OrderFlow", "nobody", "declined")
    assert line == "pgflow: OrderFlow has no instance 'nobody'. List them: pgflow list OrderFlow"
    assert closed.count("signals") == before


def test_a_signal_is_sent_later_or_called_off(busy: Shop, value: str) -> None:
    busy.ok("start", "OrderFlow", value, "--input", ORDER)
    busy.until_status(value, "waiting")
    later = busy.pgflow("resume", "OrderFlow", value, "declined", "--step", "charge", "--delay", "1h")
    number = later.stdout.strip()
    assert later.stderr.endswith(f"cancel it: pgflow unschedule {number}\n")
    assert f"cancel it: pgflow unschedule {number}" in busy.ok("show", "OrderFlow", value)
    (told,) = json.loads(busy.ok("show", "OrderFlow", value, "--json"))["instance"]["signals"]
    assert (told["event"], told["step"], told["id"]) == ("declined", "charge", number)
    assert busy.ok("unschedule", number) == "unscheduled\n"
    line = busy.refused(5, "unschedule", number)
    assert line == (
        f"pgflow: scheduled signal {number} was already sent or does not exist. "
        "List an instance's scheduled signals: pgflow show WORKFLOW VALUE"
    )
    arguments = ("resume", "OrderFlow", value, "declined", "--step", "charge", "--delay", "100ms", "--json")
    told = json.loads(busy.ok(*arguments, "--payload", '{"why": "late"}'))
    assert (told["signal"], int(told["id"]) > int(number), "at" in told) == ("scheduled", True, True)
    assert busy.until_status(value, "completed").history[-1].output == {"why": "late"}


def test_a_signal_for_later_needs_a_step_and_a_duration(closed: Shop, value: str) -> None:
    closed.ok("start", "OrderFlow", value, "--input", ORDER)
    assert "--delay requires --step" in closed.pgflow("resume", "OrderFlow", value, "declined", "--delay", "1h").stderr
    arguments = ("resume", "OrderFlow", value, "declined", "--step")
    assert "'soon' is not a valid duration" in closed.refused(2, *arguments, "charge", "--delay", "soon")
    assert "has no step 'nowhere'" in closed.refused(5, *arguments, "nowhere", "--delay", "1h")
    assert closed.count("scheduled_signals") == 0


# -- cancel and retry


def test_a_cancelled_order_is_over(busy: Shop, value: str) -> None:
    busy.ok("start", "OrderFlow", value, "--input", ORDER)
    busy.until_status(value, "waiting")
    assert busy.ok("cancel", "OrderFlow", value, "--reason", "ordered\x1b[2J twice") == f"cancelled OrderFlow {value}\n"
    shown = busy.ok("show", "OrderFlow", value)
    assert f"orderid::{value}, run {busy.get(value).run}: cancelled" in shown
    assert shown.endswith("\ncancelled: ordered\\x1b[2J twice\n")
    assert "is cancelled: it cannot be cancelled" in busy.refused(7, "cancel", "OrderFlow", value)
    assert "only a failed instance can be retried" in busy.refused(7, "retry", "OrderFlow", value)
    assert "it takes no more signals" in busy.refused(7, "resume", "OrderFlow", value, "declined")
    assert "has no instance 'nobody'" in busy.refused(5, "cancel", "OrderFlow", "nobody")
    assert "has no instance 'nobody'" in busy.refused(5, "retry", "OrderFlow", "nobody")


def test_a_failed_order_says_why_and_goes_on_after_a_retry(busy: Shop, tmp_path: Path, value: str) -> None:
    broken = tmp_path / "broken"
    broken.touch()
    busy.ok("start", "OrderFlow", value, "--input", json.dumps({"item_count": 1, "broken": str(broken)}))
    busy.until_status(value, "waiting")
    busy.ok("resume", "OrderFlow", value, "payment_confirmed")
    busy.until_status(value, "failed")
    why = "ship failed on attempt 2: ConnectionError: the carrier does not answer"
    shown = busy.ok("show", "OrderFlow", value)
    assert shown.endswith(f"\n{why}\nretry with: pgflow retry OrderFlow {value}\n")
    assert why in busy.ok("list", "OrderFlow", "--status", "failed")
    broken.unlink()
    assert busy.ok("retry", "OrderFlow", value) == f"retrying OrderFlow {value}\n"
    done = busy.until_status(value, "completed")
    assert [each.step for each in done.history] == ["validate_order", "charge", "ship"]
    assert "is completed: only a failed instance can be retried" in busy.refused(7, "retry", "OrderFlow", value)


# -- list and show


def test_show_says_in_words_what_each_step_waits_for(busy: Shop, value: str) -> None:
    busy.ok("start", "EverythingFlow", value, "--input", ORDER)
    kinds = ["retry", "running", "signal", "timer"]
    found = busy.until(value, lambda found: sorted(each.kind for each in found.waiting_for) == kinds, "EverythingFlow")
    try:
        shown = busy.ok("show", "EverythingFlow", value)
        at = {each.step: each.until.strftime("%Y-%m-%d %H:%M:%SZ") for each in found.waiting_for if each.until}
        assert set(shown.split("\n\n")[-1].splitlines()) == {
            "approve: waiting for signal approved",
            f"call_back: retry at {at['call_back']} (attempt 2 of 5): ConnectionError: nobody answers",
            f"cool_off: timer until {at['cool_off']}",
            "email: running",
        }
        assert shown.splitlines()[0] == f"EverythingFlow version 1, orderid::{value}, run {found.run}: running"
        listed = busy.ok("list", "EverythingFlow", "--status", "running")
        assert "approve: waiting for signal approved; call_back: retry at " in listed
    finally:
        busy.ok("cancel", "EverythingFlow", value)


def test_show_has_a_document_for_programs(busy: Shop, value: str) -> None:
    busy.ok("start", "OrderFlow", value, "--input", ORDER)
    busy.until_status(value, "waiting")
    said = json.loads(busy.ok("show", "OrderFlow", value, "--json"))
    found = said["instance"]
    assert said["schema_version"] == 1
    assert (found["run"], found["id"], found["status"]) == (str(busy.get(value).run), f"orderid::{value}", "waiting")
    assert (found["workflow"], found["version"], found["input"]) == ("OrderFlow", 1, {"item_count": 3})
    assert found["started_at"].endswith("Z")
    assert found["finished_at"] is None
    (entry,) = found["history"]
    assert (entry["step"], entry["event"], entry["attempt"], entry["output"]) == (
        "validate_order",
        "valid",
        1,
        {"count": 3},
    )
    assert entry["at"].endswith("Z")
    assert isinstance(entry["worker"], str)
    assert entry["duration"] >= 0
    (wait,) = found["waiting_for"]
    assert (wait["step"], wait["kind"], wait["until"]) == ("charge", "signal", None)
    assert sorted(wait["events"]) == ["declined", "payment_confirmed"]
    assert found["steps"] == {"validate_order": {"count": 3}}
    busy.ok("cancel", "OrderFlow", value)


def test_the_list_has_columns_filters_and_pages(closed: Shop, value: str) -> None:
    for number in range(3):
        closed.ok("start", "OrderFlow", f"{value}-{number}", "--input", ORDER, "--delay", "1d")
    closed.ok("cancel", "OrderFlow", f"{value}-1")
    everything = json.loads(closed.ok("list", "OrderFlow", "--json", "--limit", "10000"))
    assert everything["schema_version"] == 1
    runs = [int(each["run"]) for each in everything["instances"]]
    assert runs == sorted(runs, reverse=True)
    mine = [each for each in everything["instances"] if each["id"].startswith(f"orderid::{value}-")]
    assert [each["status"] for each in mine] == ["pending", "cancelled", "pending"]
    assert {each["started_at"][-1] for each in mine} == {"Z"}

    newest = int(mine[0]["run"])
    page = closed.pgflow("list", "--limit", "2", "--before", str(newest + 1))
    header, first, second = page.stdout.splitlines()
    assert header.split() == ["RUN", "ID", "WORKFLOW", "VERSION", "STATUS", "STARTED", "DURATION", "DETAILS"]
    assert first.split()[:5] == [str(newest), f"orderid::{value}-2", "OrderFlow", "1", "pending"]
    assert "validate_order: scheduled for " in first
    assert second.split()[4] == "cancelled"
    assert page.stderr == f"next page: --before {mine[1]['run']}\n"

    quiet = closed.ok(
        "list", "--status", "pending", "--status", "cancelled", "-n", "3", "--before", str(newest + 1), "-q"
    )
    assert quiet.splitlines() == [f"orderid::{value}-{number}" for number in (2, 1, 0)]


def test_an_empty_list_is_no_error(closed: Shop) -> None:
    done = closed.pgflow("list", "EverythingFlow")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "no instances\n")
    assert json.loads(closed.ok("list", "EverythingFlow", "--json"))["instances"] == []
    assert closed.ok("list", "EverythingFlow", "--quiet") == ""


def test_nobody_is_found_with_exit_code_5(closed: Shop) -> None:
    line = closed.refused(5, "show", "OrderFlow", "nobody")
    assert line == "pgflow: OrderFlow has no instance 'nobody'. List them: pgflow list OrderFlow"


@pytest.mark.parametrize("command", ["start", "resume", "cancel", "retry", "list", "show"])
def test_each_command_has_help_with_an_example(closed: Shop, command: str) -> None:
    said = closed.ok(command, "--help")
    assert f"\n    pgflow {command} OrderFlow" in said or "\n      pgflow " in said


@pytest.mark.parametrize("command", ["start", "resume", "cancel", "retry", "list", "show"])
def test_a_database_that_is_not_there_is_exit_code_3(closed: Shop, command: str) -> None:
    arguments = {"list": (), "resume": ("OrderFlow", "a", "b")}.get(command, ("OrderFlow", "a"))
    line = closed.refused(3, command, *arguments, "--dsn", "host=127.0.0.1 port=1 password=hunter2")
    assert line.startswith("pgflow: cannot reach PostgreSQL at 127.0.0.1:1")
    assert "hunter2" not in line


def test_the_list_finds_what_its_filters_say(closed: Shop, value: str) -> None:
    for number in range(3):
        order = json.dumps({"item_count": number + 1})
        closed.ok(
            "start",
            "OrderFlow",
            f"{value}-{number}",
            "--input",
            order,
            "--delay",
            "1d",
            "--tag",
            f"{value}-t{number % 2}",
        )
    run_of = {number: closed.get(f"{value}-{number}").run for number in range(3)}
    found = {
        number: f"orderid::{value}-{number}" for number in range(3)
    }  # fmt: skip
    after = ("--after", str(run_of[0] - 1))

    def listed(*options: str) -> list[str]:
        return closed.ok("list", *options, "--quiet").splitlines()

    assert listed("OrderFlow", *after) == [found[2], found[1], found[0]]
    assert listed("OrderFlow", *after, "--order", "oldest", "-n", "2") == [found[0], found[1]]
    assert listed(*after, "--tag", f"{value}-t0") == [found[2], found[0]]
    assert listed(*after, "--input", '{"item_count": 2}') == [found[1]]
    assert listed(*after, "--metadata", '{"nobody": "has it"}') == []
    assert listed(*after, "--output", 'ship={"by": "bike"}') == []
    assert listed("--id", found[1]) == [found[1]]
    assert listed(*after, "--family", "Order", "--version", "1") == [found[2], found[1], found[0]]
    assert listed(*after, "--family", "Order%") == listed(*after, "--version", "7") == []
    page = closed.pgflow("list", "OrderFlow", *after, "--order", "oldest", "--limit", "2")
    assert page.stderr == f"next page: --after {run_of[1]}\n"
    assert "must have the form STEP=JSON" in closed.pgflow("list", "--output", "ship").stderr
    assert "--input is not valid JSON" in closed.refused(6, "list", "--input", "{")
    assert "a dict is needed" in closed.refused(6, "list", "--metadata", "[1]")
