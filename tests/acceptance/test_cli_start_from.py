"""`pgflow start --from FILE`: one instance for each line, after all lines are validated."""

import json
import os
import pty
import subprocess
from pathlib import Path

import pytest

from pgflow.database.connect import connect
from tests.acceptance.command import PROGRAM, environment
from tests.acceptance.deployment import APP, Deployment


def test_every_line_of_a_file_is_started_unless_it_is_already_running(
    idle: Deployment, tmp_path: Path, value: str
) -> None:
    file = tmp_path / "orders.jsonl"
    lines = [{"value": f"{value}-{number}", "input": {"item_count": number}} for number in range(2500)]
    file.write_text("\n".join(json.dumps(line) for line in [*lines, lines[0]]) + "\n\n")
    before = idle.count("instances")
    assert idle.ok("start", "OrderFlow", "--from", str(file), "--tag", "bulk") == "started 2,500, already running 1\n"
    assert idle.count("instances") == before + 2500
    assert idle.get(f"{value}-7").input == {"item_count": 7}
    assert idle.get(f"{value}-7").tags == ("orders", "bulk")
    again = idle.ok("start", "OrderFlow", "--from", "-", "--json", stdin=file.read_bytes(), PGFLOW_APP=APP)
    assert json.loads(again) == {
        "schema_version": 1,
        "workflow": "OrderFlow",
        "started": 0,
        "already_running": 2501,
    }


def test_an_empty_file_starts_nothing(idle: Deployment) -> None:
    assert idle.ok("start", "OrderFlow", "--from", "-") == "started 0, already running 0\n"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "the line is not valid JSON"),
        ("[1]", "the line must be a JSON object"),
        ('{"input": {}}', 'missing key "value"'),
        ('{"value": "a b"}', "the business value 'a b' is refused"),
        ('{"value": 7}', "the business value 7 is refused"),
        ('{"value": "a", "inputs": {}}', "unknown key 'inputs'"),
        ('{"value": "a", "input": NaN}', "the line is not valid JSON: NaN is "),
        ('{"value": "a", "input": "\\u0000"}', "input holds a NUL character"),
        (f'{{"value": "a", "input": "{"x" * 17_000_000}"}}', "input is 17,000,002 bytes"),
        (f'{{"value": "a", "input": "{"x" * 68_000_000}"}}', "the line is longer than 67,108,864 bytes"),
        (b'{"value": "a", "input": "\xff"}', "the line is not valid UTF-8 (byte 25)"),
    ],
    ids=lambda text: repr(text[:30]),
)
def test_an_invalid_line_is_reported_by_number_and_nothing_is_started(
    idle: Deployment, value: str, line: str | bytes, problem: str
) -> None:
    good = "".join(f'{{"value": "{value}-{number}"}}\n' for number in range(1200)).encode()
    bad = line if isinstance(line, bytes) else line.encode()
    before = idle.count("instances")
    refusal = idle.refused(6, "start", "OrderFlow", "--from", "-", stdin=good + b"\n" + bad + b"\n" + good)
    assert refusal.startswith(f"pgflow: line 1202 of standard input: {problem}")
    assert idle.count("instances") == before


def test_the_input_model_of_the_app_validates_every_line_first(idle: Deployment, tmp_path: Path, value: str) -> None:
    file = tmp_path / "orders.jsonl"
    file.write_text(f'{{"value": "{value}", "input": {{"item_count": 1}}}}\n{{"value": "{value}b", "input": {{}}}}\n')
    before = idle.count("instances")
    line = idle.refused(6, "start", "OrderFlow", "--from", str(file), "--app", APP)
    assert f"line 2 of {file}: OrderFlow: the input does not fit Order: item_count: Field required" in line
    assert idle.count("instances") == before
    line = idle.refused(2, "start", "OrderFlow", "--from", str(tmp_path))
    assert line == f"pgflow: --from: cannot read {tmp_path}: Is a directory"


def test_instances_started_before_a_database_error_are_reported(idle: Deployment, value: str) -> None:
    with connect(idle.dsn, "test") as conn:
        conn.execute(
            f"""
            create function refuse_{value}() returns trigger language plpgsql as $$ begin raise 'no more'; end $$;
            create trigger refuse_{value} before insert on pgflow.instances for each row
                when (new.id = 'orderid::{value}-1500') execute function refuse_{value}()
            """.encode()
        )
    lines = "".join(f'{{"value": "{value}-{number}"}}\n' for number in range(2000))
    before = idle.count("instances")
    done = idle.pgflow("start", "OrderFlow", "--from", "-", stdin=lines)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.splitlines() == [
        "started 1,000 of 2,000 before the error; those are not undone",
        "pgflow: PostgreSQL error: no more",
    ]
    assert idle.count("instances") == before + 1000


def test_a_progress_bar_is_shown_on_a_terminal(idle: Deployment, value: str) -> None:
    terminal, stderr = pty.openpty()
    try:
        done = subprocess.run(
            [*PROGRAM, "start", "OrderFlow", "--from", "-"],
            check=True,
            env=environment(PGFLOW_DSN=idle.dsn, TERM="xterm"),
            input="".join(f'{{"value": "{value}-{number}"}}\n' for number in range(1001)).encode(),
            stderr=stderr,
            stdout=subprocess.PIPE,
        )
        assert done.stdout == b"started 1,001, already running 0\n"
        assert b"100%" in os.read(terminal, 100_000)
    finally:
        os.close(stderr)
        os.close(terminal)
