"""Wake-ups are a hint: when all of them are lost on their way, an idle worker finds its work by looking for it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from pgflow import Context, Done, Ok, Pgflow, Unique, Workflow, step
from pgflow.database.connect import connect
from tests.torture.wire.proxy import Proxy
from tests.torture.wire.rule import Rule
from tests.worker.db_helpers import connections
from tests.worker.thread_worker import Inside
from tests.worker.waiting import PATIENCE, until

NEVER = timedelta(minutes=10)  # longer than a test takes
STARTS = 5


@step
def end(ctx: Context[dict[str, Any]]) -> Ok:
    return Ok("done")


class Single(Workflow[dict[str, Any]], unique=Unique("single")):
    initial = end
    transitions = {end: {"done": Done}}


def test_work_whose_wake_up_is_lost_is_found_by_polling(dsn: str, proxy: Proxy) -> None:
    app = Pgflow(dsn, [Single])
    behind = Pgflow(proxy.door("worker").through(dsn), [Single])
    try:
        with Inside(behind, sweep=NEVER), connect(dsn, "watch") as conn:
            until(lambda: connections(conn, "listen"), "the listener")
            fault = proxy.inject(Rule("drop notifications"))
            for number in range(STARTS):
                app.start(Single, str(number), {})
                assert fault.wait(PATIENCE, hits=number + 1)
                until(lambda number=number: app.get(Single, str(number)).status == "completed", "the end")  # type: ignore[misc]
            assert fault.hits >= STARTS  # one for each, by the waits above; why there was a sixth, once, is not known
    finally:
        app.close()
        behind.close()
