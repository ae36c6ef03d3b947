"""`pgflow cancel`, `retry`, `show` and `list`, with a running worker."""

import json
from pathlib import Path

from tests.acceptance.deployment import ORDER, Deployment


def test_a_cancelled_order_cannot_be_changed(live: Deployment, value: str) -> None:
    live.ok("start", "OrderFlow", value, "--input", ORDER)
    live.until_status(value, "waiting")
    assert live.ok("cancel", "OrderFlow", value, "--reason", "ordered\x1b[2J twice") == f"cancelled OrderFlow {value}\n"
    shown = live.ok("show", "OrderFlow", value)
    assert f"orderid::{value}, run {live.get(value).run}: cancelled" in shown
    assert shown.endswith("\ncancelled: ordered\\x1b[2J twice\n")
    assert "is cancelled: it cannot be cancelled" in live.refused(7, "cancel", "OrderFlow", value)
    assert "only a failed instance can be retried" in live.refused(7, "retry", "OrderFlow", value)
    assert "it takes no more signals" in live.refused(7, "resume", "OrderFlow", value, "declined")
    assert "has no instance 'missing'" in live.refused(5, "cancel", "OrderFlow", "missing")
    assert "has no instance 'missing'" in live.refused(5, "retry", "OrderFlow", "missing")


def test_a_failed_order_shows_the_reason_and_completes_after_a_retry(
    live: Deployment, tmp_path: Path, value: str
) -> None:
    broken = tmp_path / "broken"
    broken.touch()
    live.ok("start", "OrderFlow", value, "--input", json.dumps({"item_count": 1, "broken": str(broken)}))
    live.until_status(value, "waiting")
    live.ok("resume", "OrderFlow", value, "payment_confirmed")
    live.until_status(value, "failed")
    reason = "ship failed on attempt 2: ConnectionError: the carrier does not answer"
    shown = live.ok("show", "OrderFlow", value)
    assert shown.endswith(f"\n{reason}\nretry with: pgflow retry OrderFlow {value}\n")
    assert reason in live.ok("list", "OrderFlow", "--status", "failed")
    broken.unlink()
    assert live.ok("retry", "OrderFlow", value) == f"retrying OrderFlow {value}\n"
    done = live.until_status(value, "completed")
    assert [each.step for each in done.history] == ["validate_order", "charge", "ship"]
    assert "is completed: only a failed instance can be retried" in live.refused(7, "retry", "OrderFlow", value)


def test_show_describes_the_state_of_each_active_step(live: Deployment, value: str) -> None:
    live.ok("start", "EverythingFlow", value, "--input", ORDER)
    kinds = ["retry", "running", "signal", "timer"]
    found = live.until(value, lambda found: sorted(each.kind for each in found.waiting_for) == kinds, "EverythingFlow")
    (worker,) = json.loads(live.ok("worker", "list", "--json"))["workers"]
    try:
        shown = live.ok("show", "EverythingFlow", value)
        at = {each.step: each.until.strftime("%Y-%m-%d %H:%M:%SZ") for each in found.waiting_for if each.until}
        assert set(shown.split("\n\n")[-1].splitlines()) == {
            "approve: waits for signal approved",
            f"call_back: retry at {at['call_back']}, after attempt 1 of 5: ConnectionError: no answer",
            f"cool_off: timer until {at['cool_off']}",
            f"email: runs on worker {worker['id']} ({worker['node']}, process {worker['pid']})",
        }
        assert shown.splitlines()[0] == f"EverythingFlow version 1, orderid::{value}, run {found.run}: running"
        listed = live.ok("list", "EverythingFlow", "--status", "running")
        assert "approve: waiting for signal approved; call_back: retry at " in listed
    finally:
        live.ok("cancel", "EverythingFlow", value)


def test_show_prints_a_json_document(live: Deployment, value: str) -> None:
    live.ok("start", "OrderFlow", value, "--input", ORDER)
    live.until_status(value, "waiting")
    record = json.loads(live.ok("show", "OrderFlow", value, "--json"))
    found = record["instance"]
    assert record["schema_version"] == 1
    assert (found["run"], found["id"], found["status"]) == (str(live.get(value).run), f"orderid::{value}", "waiting")
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
    live.ok("cancel", "OrderFlow", value)


def test_list_has_columns_filters_and_pages(idle: Deployment, value: str) -> None:
    for number in range(3):
        idle.ok("start", "OrderFlow", f"{value}-{number}", "--input", ORDER, "--delay", "1d")
    idle.ok("cancel", "OrderFlow", f"{value}-1")
    everything = json.loads(idle.ok("list", "OrderFlow", "--json", "--limit", "10000"))
    assert everything["schema_version"] == 1
    runs = [int(each["run"]) for each in everything["instances"]]
    assert runs == sorted(runs, reverse=True)
    mine = [each for each in everything["instances"] if each["id"].startswith(f"orderid::{value}-")]
    assert [each["status"] for each in mine] == ["pending", "cancelled", "pending"]
    assert {each["started_at"][-1] for each in mine} == {"Z"}

    newest = int(mine[0]["run"])
    page = idle.pgflow("list", "--limit", "2", "--before", str(newest + 1))
    header, first, second = page.stdout.splitlines()
    assert header.split() == ["RUN", "ID", "WORKFLOW", "VERSION", "STATUS", "STARTED", "DURATION", "DETAILS"]
    assert first.split()[:5] == [str(newest), f"orderid::{value}-2", "OrderFlow", "1", "pending"]
    assert "validate_order: scheduled for " in first
    assert second.split()[4] == "cancelled"
    assert page.stderr == f"next page: --before {mine[1]['run']}\n"

    quiet = idle.ok(
        "list", "--status", "pending", "--status", "cancelled", "-n", "3", "--before", str(newest + 1), "-q"
    )
    assert quiet.splitlines() == [f"orderid::{value}-{number}" for number in (2, 1, 0)]


def test_an_empty_list_exits_with_0(idle: Deployment) -> None:
    done = idle.pgflow("list", "EverythingFlow")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "no instances\n")
    assert json.loads(idle.ok("list", "EverythingFlow", "--json"))["instances"] == []
    assert idle.ok("list", "EverythingFlow", "--quiet") == ""


def test_list_applies_its_filters(idle: Deployment, value: str) -> None:
    for number in range(3):
        order = json.dumps({"item_count": number + 1})
        options = ("--input", order, "--delay", "1d", "--tag", f"{value}-t{number % 2}")
        idle.ok("start", "OrderFlow", f"{value}-{number}", *options)
    run_of = {number: idle.get(f"{value}-{number}").run for number in range(3)}
    found = {number: f"orderid::{value}-{number}" for number in range(3)}
    after = ("--after", str(run_of[0] - 1))

    def listed(*options: str) -> list[str]:
        return idle.ok("list", *options, "--quiet").splitlines()

    assert listed("OrderFlow", *after) == [found[2], found[1], found[0]]
    assert listed("OrderFlow", *after, "--order", "oldest", "-n", "2") == [found[0], found[1]]
    assert listed(*after, "--tag", f"{value}-t0") == [found[2], found[0]]
    assert listed(*after, "--input", '{"item_count": 2}') == [found[1]]
    assert listed(*after, "--metadata", '{"missing": "has it"}') == []
    assert listed(*after, "--output", 'ship={"by": "bike"}') == []
    assert listed("--id", found[1]) == [found[1]]
    assert listed(*after, "--family", "Order", "--version", "1") == [found[2], found[1], found[0]]
    assert listed(*after, "--family", "Order%") == listed(*after, "--version", "7") == []
    page = idle.pgflow("list", "OrderFlow", *after, "--order", "oldest", "--limit", "2")
    assert page.stderr == f"next page: --after {run_of[1]}\n"
    assert "must have the form STEP=JSON" in idle.pgflow("list", "--output", "ship").stderr
    assert "--input is not valid JSON" in idle.refused(6, "list", "--input", "{")
    assert "dict" in idle.refused(6, "list", "--metadata", "[1]")
