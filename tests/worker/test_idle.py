"""A worker that has nothing to do asks one question at a time, and no other."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from pgflow.database.statement import Statement
from pgflow.worker.claimer import Claimer
from tests.worker.conftest import Work
from tests.worker.flows import Line
from tests.worker.patience import until
from tests.worker.sight import until_status

WORKFLOWS = (Line,)
LATER = timedelta(hours=1)


def test_an_idle_worker_only_looks_and_takes_what_nobody_told_it_of(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[str, ...]] = []
    send = Claimer._send

    async def note(self: Claimer, conn: Any, statements: Mapping[str, Statement[Any]]) -> dict[str, Any]:
        sent.append(tuple(statements))
        return await send(self, conn, statements)

    monkeypatch.setattr(Claimer, "_send", note)
    work(listen=False, poll=timedelta(milliseconds=20), sweep=LATER)
    looks = ("look",)
    until(lambda: looks in sent)
    del sent[: sent.index(looks)]
    until(lambda: len(sent) > 20)
    assert set(sent) == {looks}
    Line.start("v", {})
    assert until_status(Line, "v", "completed").history
    assert ("claim",) in sent
