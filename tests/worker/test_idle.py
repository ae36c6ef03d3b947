"""An idle worker sends one cheap statement per poll."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from pgflow.database.statement import Statement
from pgflow.worker.turns.claimer import Claimer
from tests.worker.conftest import Work
from tests.worker.db_helpers import until_status
from tests.worker.flows import Line
from tests.worker.waiting import until

WORKFLOWS = (Line,)
LATER = timedelta(hours=1)


def test_an_idle_worker_only_peeks_and_finds_work_without_a_notification(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[str, ...]] = []
    run_all = Claimer._run_all

    async def note(self: Claimer, conn: Any, statements: list[Statement[Any]]) -> list[Any]:
        sent.append(tuple(each.name for each in statements))
        return await run_all(self, conn, statements)

    monkeypatch.setattr(Claimer, "_run_all", note)
    work(listen=False, poll=timedelta(milliseconds=20), sweep=LATER, retention=None)
    peeks = ("job/peek",)
    until(lambda: peeks in sent)
    del sent[: sent.index(peeks)]
    until(lambda: len(sent) > 20)
    assert set(sent) == {peeks}
    Line.start("v", {})
    assert until_status(Line, "v", "completed").history
    assert ("job/claim",) in sent
