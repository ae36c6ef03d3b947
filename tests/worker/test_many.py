"""Many instances, workers that are killed and paused: everything ends, and each step is recorded once."""

from __future__ import annotations

import signal
from collections import Counter

import pytest

from pgflow import Pgflow
from pgflow.database.connect import Connection
from tests.worker.db_helpers import leftovers, one, rows, until_all_ended
from tests.worker.flows import WORKFLOWS as WORKFLOWS
from tests.worker.flows import Fan, Line
from tests.worker.processes import Process, Processes
from tests.worker.waiting import until

LINES, FANS = 1000, 200
STEPS = 5 * LINES + 12 * FANS


def recorded(conn: Connection) -> int:
    return int(one(conn, "select count(*) from pgflow.step_results"))


def is_paused(conn: Connection, process: Process) -> bool:
    """Pause a worker; on an older server, without transaction_timeout, let it go on if it was just sending."""
    process.send(signal.SIGSTOP)
    open_ = """select count(*) from pg_stat_activity
        where application_name = 'pgflow:worker' and wait_event = 'ClientRead' and state <> 'idle'"""
    if conn.info.server_version >= 170_000 or not one(conn, open_):
        return True
    process.send(signal.SIGCONT)
    return False


@pytest.mark.chaos
def test_all_is_done_once_though_a_worker_is_killed_and_another_one_paused(
    app: Pgflow, conn: Connection, processes: Processes
) -> None:
    Line.start_many([(f"line-{number}", {"seconds": 0.005}) for number in range(LINES)])
    Fan.start_many([(f"fan-{number}", {"seconds": 0.005}) for number in range(FANS)])
    killed, paused = processes.start("-q", "default=20", ready=False), processes.start("-q", "default=20", ready=False)
    processes.wait_for(killed, paused)
    (paused_id,) = rows(conn, "select id from pgflow.workers where pid = %s", paused.pid)[0]

    until(lambda: recorded(conn) > STEPS // 20, "some work")
    killed.kill()
    third = processes.start("-q", "default=20")
    until(lambda: one(conn, "select count(*) from pgflow.jobs where worker = %s", paused_id), "work in its hands")
    until(lambda: is_paused(conn, paused), "the pause")
    assert recorded(conn) < STEPS, "there must be something left to be rescued"
    assert one(conn, "select count(*) from pgflow.jobs where worker = %s", paused_id) > 0
    until(
        lambda: (
            not one(conn, "select count(*) from pgflow.workers where id = %s and lease_expires_at > now()", paused_id)
            and not one(conn, "select count(*) from pgflow.jobs where worker = %s", paused_id)
        ),
        "the rescue of what it held",
    )
    paused.send(signal.SIGCONT)

    assert until_all_ended(conn, patience=60) == {"completed": LINES + FANS}
    assert leftovers(conn) == {}
    per_workflow = rows(
        conn,
        """select i.workflow, count(r.step), count(distinct r.step)
        from pgflow.instances i join pgflow.step_results r using (run) group by i.run""",
    )
    assert Counter(per_workflow) == {("Line", 5, 5): LINES, ("Fan", 12, 12): FANS}
    sums = (
        "select output, count(*) from pgflow.step_results where step in ('five', 'gather') group by output order by 2"
    )
    assert rows(conn, sums) == [({"sum": 45}, FANS), ({"n": 5}, LINES)]
    lives = "select count(*) from pgflow.workers where pid = %s"
    until(lambda: one(conn, lives, paused.pid) == 2, "the paused worker's second life")
    assert (killed.code, paused.code, third.code) == (-signal.SIGKILL, None, None)
