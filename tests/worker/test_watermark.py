"""A worker whose claims all count as slow: it begins at the floor wherever it may, and still misses nothing."""

from __future__ import annotations

from datetime import timedelta

import pytest

from pgflow import Pgflow
from pgflow.database.connect import Connection, connect
from pgflow.database.statement import Statement
from pgflow.store import job
from pgflow.worker.turns import watermark
from tests.worker.conftest import Work
from tests.worker.db_helpers import until_all_ended
from tests.worker.gated_steps import Gate, Trio
from tests.worker.waiting import PATIENCE

WORKFLOWS = (Trio,)
LONG = timedelta(minutes=1)


@pytest.fixture(autouse=True)
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every claim that finds something count as slow, and a look below be seldom."""
    Gate.close()
    Gate.go.set()
    monkeypatch.setattr(watermark, "SLOW_SECONDS", -1.0)
    monkeypatch.setattr(watermark, "SHARE", 1000)
    monkeypatch.setattr(watermark, "SHARE_DRY", 200)


def test_a_job_committed_late_is_found_below_the_watermark_without_a_sweep(
    app: Pgflow, dsn: str, conn: Connection, work: Work
) -> None:
    with connect(dsn, "late", autocommit=False) as late:
        late.execute("select pgflow.start('Trio', 'late')")
        work({"default": 2}, poll=LONG, sweep=LONG, lease=LONG)
        Trio.start_many([(f"v{number}", {}) for number in range(20)])
        assert until_all_ended(conn) == {"completed": 20}
        late.commit()
        assert until_all_ended(conn) == {"completed": 21}


def test_what_is_more_urgent_is_found_below_the_floor(app: Pgflow, conn: Connection, work: Work) -> None:
    Gate.go.clear()
    work({"default": 2}, poll=LONG, sweep=LONG, lease=LONG)
    Trio.start_many([(f"v{number}", {"gate": True}) for number in range(40)])
    assert Gate.begun.wait(PATIENCE)
    Trio.start_many([(f"urgent{number}", {}) for number in range(5)], priority=-5)
    Gate.go.set()
    assert until_all_ended(conn) == {"completed": 45}


def test_the_first_slow_claim_discards_the_plans(
    app: Pgflow, conn: Connection, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    replan = job.replan

    def note(schema: str) -> Statement[None]:
        asked.append(schema)
        return replan(schema)

    monkeypatch.setattr(job, "replan", note)
    work({"default": 2})
    Trio.start_many([(f"v{number}", {}) for number in range(20)])
    assert until_all_ended(conn) == {"completed": 20}
    assert asked == ["pgflow"]
