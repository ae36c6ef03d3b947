"""`pgflow enqueue` and `pgflow job …`, for an app that has tasks only."""

import json
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.acceptance.command import PROGRAM, environment
from tests.acceptance.deployment import Deployment
from tests.conftest import Server
from tests.worker.waiting import until

APP = "tests.acceptance.errands:app"


class Errands(Deployment):
    """A database with a worker of the app, on the queue "default"."""

    def enqueue(self, *arguments: str, **options: Any) -> str:
        """Enqueue with the app, and return the job's id."""
        return self.ok("enqueue", *arguments, "--app", APP, **options).strip()

    def until_ended(self, job: str) -> dict[str, Any]:
        """Wait until a job has ended, and read it."""
        until(lambda: self.job(job)["finished_at"], f"the end of job {job}")
        return self.job(job)

    def job(self, job: str) -> dict[str, Any]:
        """Read a job with the command."""
        shown: dict[str, Any] = json.loads(self.ok("job", "show", job, "--json"))["job"]
        return shown


@pytest.fixture(scope="module")
def errands(server: Server, migrated_database: Callable[[Server], str]) -> Iterator[Errands]:
    made = Errands(migrated_database(server))
    with subprocess.Popen(
        [*PROGRAM, "worker", "--app", APP, "--poll", "0.05"],
        env=environment(PGFLOW_DSN=made.dsn),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as worker:
        try:
            made.until_ended(made.enqueue("send", "order_id=0"))
            yield made
        finally:
            worker.terminate()


def test_a_job_goes_from_enqueue_to_its_output(errands: Errands) -> None:
    options = ("--tag", "x", "--priority", "-3", "--at", "2099-01-31T12:00:00Z")
    job = errands.enqueue("send", "order_id=7", "to=123", "due=2030-01-31", *options)
    shown = errands.job(job)
    assert shown["args"] == {"order_id": 7, "to": "123", "due": "2030-01-31"}
    assert (shown["status"], shown["priority"], shown["tags"]) == ("pending", -3, ["mail", "x"])
    assert shown["run_at"] == "2099-01-31T12:00:00Z"
    assert errands.ok("job", "run-now", job) == f"running now: job {job}\n"
    done = errands.until_ended(job)
    assert (done["status"], done["output"], done["attempt"]) == ("completed", {"number": "r-7", "to": "123"}, 1)
    text = errands.ok("job", "show", job)
    assert text.startswith(f"job {job}, send: completed\nqueue     default, priority -3\n")
    assert text.endswith('\n\noutput    {"to": "123", "number": "r-7"}\n')
    assert "tags      mail, x\n" in text
    assert 'metadata  {"team": "shop"}\n' in text


def test_enqueue_without_an_app_needs_a_registered_task(errands: Errands) -> None:
    job = errands.ok("enqueue", "send", "--args", '{"order_id": 8}').strip()
    assert errands.job(job)["args"] == {"order_id": 8}
    record = json.loads(errands.ok("enqueue", "send", "order_id=9", "--json"))
    assert (record["task"], record["created"], errands.job(record["id"])["args"]) == ("send", True, {"order_id": 9})
    assert "no task named 'sned' is registered here" in errands.refused(5, "enqueue", "sned")
    assert "no task named 'sned'" in errands.refused(5, "enqueue", "sned", "--app", APP)


def test_enqueue_waits_for_the_output_or_the_failure(errands: Errands) -> None:
    done = errands.pgflow("enqueue", "send", "order_id=1", "--app", APP, "--wait", "30s")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"number": "r-1", "to": "ann"})
    assert done.stderr.startswith("job ")
    record = json.loads(errands.ok("enqueue", "send", "order_id=2", "--wait", "30s", "--json"))
    assert record["output"] == {"number": "r-2", "to": "ann"}
    failed = errands.pgflow("enqueue", "fail", "reason=no paper", "--wait", "30s")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "(fail) failed: no paper. See its attempts: pgflow job show" in failed.stderr
    late = errands.pgflow("enqueue", "send", "order_id=3", "--delay", "1h", "--wait", "0.1")
    assert (late.returncode, late.stdout) == (1, "")
    assert "has not ended after 0.1 s. It continues: wait for it again." in late.stderr


def test_jobs_are_listed_by_filters(errands: Errands) -> None:
    ids = [errands.enqueue("send", f"order_id={n}", "--tag", "listed", "--delay", "1h") for n in range(3)]
    listed = ("job", "list", "--tag", "listed")
    assert errands.ok(*listed, "--quiet").split() == ids[::-1]
    assert errands.ok(*listed, "-q", "--args", '{"order_id": 1}').split() == [ids[1]]
    assert errands.ok(*listed, "-q", "--order", "oldest", "--after", ids[0], "--limit", "1").split() == [ids[1]]
    assert (
        errands.ok("job", "list", "once", "--tag", "listed", "--json") == '{\n  "schema_version": 1,\n  "jobs": []\n}\n'
    )
    by_filter = ("job", "list", "--filter", "task:send tag:listed args.order_id:1", "-q")
    assert errands.ok(*by_filter).split() == [ids[1]]
    assert errands.ok("job", "list", "--filter", "tag:listed", "--order", "oldest", "-q").split() == ids
    table = errands.ok(*listed, "--status", "pending").splitlines()
    assert table[0].split() == ["JOB", "TASK", "STATUS", "QUEUE", "ATTEMPT", "ENQUEUED", "DURATION", "DETAILS"]
    assert table[1].split()[:7] == [ids[2], "send", "pending", "default", "0", "of", "5"]
    assert "scheduled for" in table[1]
    done = errands.pgflow(*listed, "--limit", "2")
    assert done.stderr == f"next page: --before {ids[1]}\n"
    assert errands.pgflow(*listed, "--status", "failed").stderr == "no jobs\n"


def test_jobs_are_changed_by_their_ids(errands: Errands) -> None:
    one, two = (errands.enqueue("send", f"order_id={n}", "--delay", "1h") for n in range(2))
    assert errands.ok("job", "move", one, two, "--queue", "slow", "--priority", "9") == (
        f"moved: job {one}\nmoved: job {two}\n"
    )
    assert (errands.job(one)["queue"], errands.job(two)["priority"]) == ("slow", 9)
    assert errands.ok("job", "cancel", one, "--reason", "sent twice") == f"cancelled: job {one}\n"
    assert errands.job(one)["error"] == {"reason": "sent twice"}
    assert errands.ok("job", "show", one).endswith("\n\ncancelled: sent twice\n")
    assert errands.ok("job", "retry", one) == f"retrying: job {one}\n"
    assert errands.job(one)["status"] == "pending"
    assert errands.ok("job", "move", two, "--queue", "default") == f"moved: job {two}\n"
    errands.ok("job", "run-now", two)
    assert errands.until_ended(two)["status"] == "completed"
    assert json.loads(errands.ok("job", "delete", one, two, "--json"))["jobs"] == [one, two]
    assert f"there is no job {one}" in errands.refused(5, "job", "show", one)


def test_a_failed_job_shows_its_attempts(errands: Errands) -> None:
    job = errands.enqueue("fail", "reason=no paper")
    errands.until_ended(job)
    text = errands.ok("job", "show", job)
    assert "ATTEMPT  ERROR  REASON\n1        Error  no paper\n" in text
    assert text.endswith(f"\n\nfailed on attempt 2: no paper\n\nretry with: pgflow job retry {job}\n")
    assert errands.ok("job", "list", "fail", "--status", "failed").splitlines()[1].endswith("no paper")


def test_a_unique_job_is_not_enqueued_twice(errands: Errands) -> None:
    job = errands.enqueue("once", "key=a", "--delay", "1h")
    for more in (("--app", APP), ()):
        again = errands.pgflow("enqueue", "once", "key=a", *more)
        assert (again.returncode, again.stdout.strip()) == (0, job)
        assert again.stderr == f"job {job} existed: it has the same unique key\n"
    first = errands.enqueue("send", "order_id=1", "--idempotency-key", "k")
    assert errands.enqueue("send", "order_id=1", "--idempotency-key", "k") == first


@pytest.mark.parametrize(
    ("code", "arguments", "message"),
    [
        (2, ("enqueue", "send", "7"), "must have the form NAME=VALUE, got '7'"),
        (2, ("enqueue", "send", "a=1", "a=2"), "The argument a is given twice"),
        (2, ("enqueue", "send", "a=1", "--args", "{}"), "either --args or NAME=VALUE"),
        (2, ("enqueue", "send", "--delay", "1h", "--at", "2030-01-31T12:00:00Z"), "mutually exclusive"),
        (2, ("job", "move", "1"), "Pass --queue, --priority or both"),
        (2, ("job", "retry"), "Missing argument"),
        (2, ("job", "shw", "1"), "Did you mean show"),
        (2, ("job", "list", "-q", "--json"), "mutually exclusive"),
        (2, ("job", "list", "send", "--filter", "state:failed"), "--filter replaces TASK and the other filters"),
        (6, ("job", "list", "--filter", "stat:failed"), "stat"),
        (6, ("job", "list", "--filter", "step:pay"), "step"),
        (5, ("job", "complete", "999999"), "there is no job 999999"),
        (5, ("job", "fail", "999999"), "there is no job 999999"),
        (5, ("job", "delete", "999999"), "there is no job 999999"),
        (2, ("job", "cancel", "x"), "'x' is not a valid integer"),
        (2, ("job", "move", "1", "--priority", "99999"), "99999 is not in the range"),
    ],
)
def test_wrong_usage_is_refused(errands: Errands, code: int, arguments: tuple[str, ...], message: str) -> None:
    done = errands.pgflow(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr


@pytest.mark.parametrize(
    ("code", "arguments", "message"),
    [
        (6, ("enqueue", "send", "--args", "[1]", "--app", APP), "--args must be a JSON object"),
        (6, ("enqueue", "send", "--args", "{", "--app", APP), "--args is not valid JSON"),
        (6, ("enqueue", "send", "order_id=x", "--app", APP), "order_id: Input should be a valid integer"),
        (6, ("enqueue", "send", "--app", APP), "order_id: Field required"),
        (6, ("enqueue", "send", "order_id=1", "cop=1", "--app", APP), "cop: Unexpected keyword argument"),
        (6, ("enqueue", "send", "order_id=1", "--queue", "a b", "--app", APP), "'a b' is not a valid queue"),
        (6, ("enqueue", "send", "order_id=1", "--queue", "a b"), "'a b' is not a valid queue"),
        (6, ("job", "list", "--args", "[1]"), "it must be a dict"),
        (5, ("job", "cancel", "999999"), "there is no job 999999"),
        (5, ("job", "delete", "999999"), "there is no job 999999"),
    ],
)
def test_a_refused_command_prints_one_line(
    errands: Errands, code: int, arguments: tuple[str, ...], message: str
) -> None:
    assert message in errands.refused(code, *arguments)
