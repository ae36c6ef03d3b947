"""The arrays of a settle are the ones that its statement takes, and sql/README.md lists them."""

import re
from pathlib import Path

from pgflow.database.arrays import Array, Bigints, Booleans, Doubles, Integers, Smallints, Texts
from pgflow.store.job_updates import (
    Advance,
    Branch,
    End,
    Fail,
    InstanceUpdate,
    JobUpdate,
    Move,
    Result,
    Retry,
    encode,
)

SQL = Path(__file__).parents[2] / "sql"
TYPES: dict[str, type[Array]] = {
    "bigint": Bigints,
    "boolean": Booleans,
    "double precision": Doubles,
    "integer": Integers,
    "smallint": Smallints,
    "text": Texts,
}
GROUP = re.compile(r"^\| `(\w+)` \(\w+\) \| ([\w, ]+) \|", re.MULTILINE)


def test_the_statement_takes_each_array_in_its_type() -> None:
    query = (SQL / "queries" / "job" / "settle.sql").read_text()
    taken = {name: TYPES[of] for name, of in re.findall(r"%\((\w+)\)b::([a-z ]+)\[\]", query)}
    assert {name: type(array) for name, array in encode([], [], []).items()} == taken


def test_the_readme_lists_each_group_with_its_columns() -> None:
    listed = [
        f"{group}_{column}"
        for group, columns in GROUP.findall((SQL / "README.md").read_text())
        for column in columns.split(", ")
    ]
    assert sorted(listed) == sorted(encode([], [], []))


def test_a_group_has_rows_only_for_the_jobs_with_its_effect() -> None:
    move = Move("b", None, "default", 3, 5, solo=True, keep=True)
    retry = Retry("[]", "constant", 1.0, 60.0, 0.5)
    updates = [
        JobUpdate(1, 7, 1, "a", "execute", move, Result("done", output="{}")),
        JobUpdate(2, 7, 2, "c", "execute", retry),
        JobUpdate(3, 8, 1, "a", "execute", End(), Result("done"), Advance("q"), signal=9),
        JobUpdate(4, 9, 1, "a", "resume", Fail()),
    ]
    arrays = encode(updates, [InstanceUpdate(8, 2, "completed")], [Branch(7, "d", None, "default", 3, 5)])
    assert arrays["job_id"] == [1, 2, 3, 4]
    assert arrays["job_guarded"] == [False, False, True, True]
    assert arrays["job_signal"] == [None, None, 9, None]
    assert (arrays["move_job"], arrays["move_step"]) == ([1], ["b"])
    assert (arrays["retry_job"], arrays["retry_jitter"]) == ([2], [0.5])
    assert (arrays["end_job"], arrays["advance_job"], arrays["advance_queue"]) == ([3], [3], ["q"])
    assert (arrays["result_job"], arrays["result_output"]) == ([1, 3], ["{}", None])
    assert (arrays["park_job"], arrays["snooze_seconds"]) == ([], [])
    assert (arrays["instance_run"], arrays["branch_step"]) == ([8], ["d"])
