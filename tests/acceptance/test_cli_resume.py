"""`pgflow resume` and `pgflow unschedule`, with a running worker."""

import json
from pathlib import Path

from tests.acceptance.deployment import ORDER, Deployment


def test_a_signal_that_arrives_early_is_kept_until_the_step_waits(live: Deployment, tmp_path: Path, value: str) -> None:
    hold = tmp_path / "hold"
    hold.touch()
    live.ok("start", "OrderFlow", value, "--input", json.dumps({"item_count": 1, "hold": str(hold)}))
    early = live.pgflow("resume", "OrderFlow", value, "payment_confirmed", "--payload", "-", stdin='{"early": true}')
    assert (early.returncode, early.stdout) == (0, "kept\n")
    assert early.stderr == "no step is waiting for payment_confirmed: the signal is kept until one does\n"
    hold.unlink()
    assert live.until_status(value, "completed").steps["charge"] == {"early": True}


def test_a_signal_may_name_the_whole_business_id_and_a_step(live: Deployment, value: str) -> None:
    live.ok("start", "OrderFlow", value, "--input", ORDER)
    live.until_status(value, "waiting")
    printed = live.ok("resume", "OrderFlow", f"orderid::{value}", "declined", "--step", "charge", "--json")
    assert json.loads(printed) == {
        "schema_version": 1,
        "workflow": "OrderFlow",
        "value": f"orderid::{value}",
        "event": "declined",
        "signal": "delivered",
    }
    second = live.refused(7, "resume", "OrderFlow", value, "declined")  # in either order with the worker
    assert "has gone past the step that takes 'declined'" in second or "takes no more signals" in second
    done = live.until_status(value, "completed")
    assert done.history[-1].event == "declined"
    line = live.refused(7, "resume", "OrderFlow", value, "declined")
    assert f"OrderFlow 'orderid::{value}' is completed: it takes no more signals." in line


def test_an_invalid_signal_is_refused_and_changes_nothing(idle: Deployment, value: str) -> None:
    idle.ok("start", "OrderFlow", value, "--input", ORDER)
    before = idle.count("signals")
    line = idle.refused(6, "resume", "OrderFlow", value, "paid")
    assert line.startswith("pgflow: OrderFlow takes no signal 'paid'. It takes: ")
    assert "payment_confirmed (charge)" in line
    line = idle.refused(5, "resume", "OrderFlow", value, "declined", "--step", "nowhere")
    assert line.startswith("pgflow: OrderFlow has no step 'nowhere'. It has: ")
    line = idle.refused(6, "resume", "OrderFlow", value, "declined", "--step", "done")
    assert "step 'done' takes no signal 'declined'" in line
    for payload, problem in (
        ("{", "is not valid JSON"),
        ("NaN", "is not valid JSON: NaN is "),
        ('"\\u0000"', "NUL character"),
    ):
        line = idle.refused(6, "resume", "OrderFlow", value, "declined", "--payload", payload)
        assert line.startswith("pgflow: payload ")
        assert problem in line
    line = idle.refused(5, "resume", "OrderFlow", "missing", "declined")
    assert line == "pgflow: OrderFlow has no instance 'missing'. List them: pgflow list OrderFlow"
    assert idle.count("signals") == before


def test_a_signal_can_be_scheduled_and_unscheduled(live: Deployment, value: str) -> None:
    live.ok("start", "OrderFlow", value, "--input", ORDER)
    live.until_status(value, "waiting")
    later = live.pgflow("resume", "OrderFlow", value, "declined", "--step", "charge", "--delay", "1h")
    number = later.stdout.strip()
    assert later.stderr.endswith(f"cancel it: pgflow unschedule {number}\n")
    assert f"cancel it: pgflow unschedule {number}" in live.ok("show", "OrderFlow", value)
    (signal,) = json.loads(live.ok("show", "OrderFlow", value, "--json"))["instance"]["signals"]
    assert (signal["event"], signal["step"], signal["id"]) == ("declined", "charge", number)
    assert live.ok("unschedule", number) == "unscheduled\n"
    line = live.refused(5, "unschedule", number)
    assert line == (
        f"pgflow: scheduled signal {number} was already sent or does not exist. "
        "List an instance's scheduled signals: pgflow show WORKFLOW VALUE"
    )
    arguments = ("resume", "OrderFlow", value, "declined", "--step", "charge", "--delay", "100ms", "--json")
    signal = json.loads(live.ok(*arguments, "--payload", '{"why": "late"}'))
    assert (signal["signal"], int(signal["id"]) > int(number), "at" in signal) == ("scheduled", True, True)
    assert live.until_status(value, "completed").history[-1].output == {"why": "late"}


def test_a_scheduled_signal_requires_a_step_and_a_duration(idle: Deployment, value: str) -> None:
    idle.ok("start", "OrderFlow", value, "--input", ORDER)
    assert "--delay requires --step" in idle.pgflow("resume", "OrderFlow", value, "declined", "--delay", "1h").stderr
    arguments = ("resume", "OrderFlow", value, "declined", "--step")
    assert "'soon' is not a valid duration" in idle.refused(2, *arguments, "charge", "--delay", "soon")
    assert "has no step 'nowhere'" in idle.refused(5, *arguments, "nowhere", "--delay", "1h")
    assert idle.count("scheduled_signals") == 0
