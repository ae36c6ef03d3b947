"""SQL load on the tables of a schema of any version, and a watch on sessions that a migration blocks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from pgflow.database.connect import Connection, connect
from tests.worker.db_helpers import rows
from tests.worker.waiting import until

# Each in a separate transaction; valid on every schema since 0001.
WORK = """
insert into pgflow.instances (id, workflow, version, status, input)
    values ('a', 'Busy', 1, 'running', '{"n": 1}')
insert into pgflow.jobs (run, step) select max(run), 'only' from pgflow.instances
update pgflow.workers set lease_expires_at = pgflow.now() + interval '1 minute' where id = 1
update pgflow.jobs set state = 'running', worker = 1, attempt = attempt + 1
    where id = (select id from pgflow.jobs where state = 'ready' order by run_at limit 1 for update skip locked)
insert into pgflow.step_results (run, step, event, started_at, attempt, output)
    select max(run) + 1, 'only', 'done', pgflow.now(), 1, '{"n": 1}' from pgflow.step_results on conflict do nothing
insert into pgflow.signals (run, name) values (1, 'called')
update pgflow.signals set consumed_at = pgflow.now() where id = (select max(id) from pgflow.signals)
insert into pgflow.definitions (workflow, version, hash, graph) values ('Busy', 1, '', '{}')
    on conflict (workflow, version) do update set hash = excluded.hash
delete from pgflow.jobs where id = (select id from pgflow.jobs where state = 'running' limit 1 for update skip locked)
select count(*) from pgflow.instances where unique_key = 'none'
"""
STATEMENTS = [each.strip() for each in WORK.replace("\n    ", " ").strip().splitlines()]
TABLES = ("instances", "step_results", "jobs", "signals", "workers", "queues", "definitions")
# The server reports which session blocks which, so that a slow test is not mistaken for a blocked session.
WAITING = """
select extract(epoch from clock_timestamp() - l.waitstart)::double precision, l.relation::regclass::text, a.query
from pg_locks l join pg_stat_activity a on a.pid = l.pid
where not l.granted and l.waitstart is not null and l.pid <> %(migrator)s
    and %(migrator)s = any (pg_blocking_pids(l.pid))
order by 1 desc
limit 1
"""
SEED = """
insert into pgflow.workers (node, pid, queues, version, lease_expires_at) values ('busy', 1, '{}', '0', 'infinity');
insert into pgflow.instances (id, workflow, version, status, input, finished_at)
    select 'i' || n, 'Busy', 1, 'completed', jsonb_build_object('n', n), now() from generate_series(1, 20000) n;
insert into pgflow.step_results (run, step, event, started_at, attempt, output)
    select n, 'first', 'done', now(), 1, jsonb_build_object('n', n) from generate_series(1, 40000) n;
insert into pgflow.jobs (run, step, state, run_at)
    select n, 'later', 'scheduled', now() + interval '1 day' from generate_series(1, 20000) n;
insert into pgflow.signals (run, name, consumed_at) select n, 'old', now() from generate_series(1, 5000) n;
analyze;
"""


class BackgroundLoad:
    """Within the `with`, two sessions write, one reads every table in an open transaction, and one locks rows.

    `migrator` is the process id of the migrating backend, `worst` the longest wait for it so far, with its relation and
    query; `errors` are the errors of all sessions. Without `renews` no lease is renewed: a breaking migration waits for
    the end of all workers.
    """

    def __init__(self, dsn: str, migrator: int, *, renews: bool = True) -> None:
        self._statements = [each for each in STATEMENTS if renews or "lease_expires_at" not in each]
        self.worst: tuple[Any, ...] = (0.0,)
        self.errors: list[str] = []
        self.turns = 0
        self._dsn = dsn
        self._migrator = migrator
        self._stop = threading.Event()
        parts = (self._write, self._write, self._read, self._lock, self._watch)
        self._threads = [threading.Thread(target=self._live, args=[part]) for part in parts]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        until(lambda: self.errors or self.turns > 4, "the bustle")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _live(self, part: Callable[[Connection], None]) -> None:
        try:
            with connect(self._dsn) as conn:
                while not self._stop.is_set():
                    part(conn)
        except Exception as error:
            self.errors.append(f"{part.__name__}: {error}")

    def _write(self, conn: Connection) -> None:
        for statement in self._statements:
            conn.execute(statement.encode())
        self.turns += 1

    def _read(self, conn: Connection) -> None:
        with conn.transaction():
            for table in TABLES:
                conn.execute(f"select from pgflow.{table} limit 1".encode())
            self._stop.wait(0.6)
        self._stop.wait(0.3)

    def _lock(self, conn: Connection) -> None:
        with conn.transaction():
            conn.execute("select from pgflow.jobs where state = 'scheduled' order by id limit 10 for update")
            conn.execute("select from pgflow.instances where run <= 10 for update")
            self._stop.wait(0.3)
        self._stop.wait(0.3)

    def _watch(self, conn: Connection) -> None:
        for waited in conn.execute(WAITING, {"migrator": self._migrator}).fetchall():
            self.worst = max(self.worst, waited)
        self._stop.wait(0.005)


def filenodes(conn: Connection) -> dict[str, int]:
    """Return the file of each table and index; a new file means that it was rewritten."""
    query = """select relname, pg_relation_filenode(oid) from pg_class
        where relnamespace = 'pgflow'::regnamespace and relkind in ('r', 'i')"""
    return dict(rows(conn, query))
