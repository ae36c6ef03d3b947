"""Plain SQL that keeps the tables busy on a schema of any age, and a watch on who has to wait for a migration."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from pgflow.database.connect import Connection, connect
from tests.worker.patience import until
from tests.worker.sight import rows

# Each in a transaction of its own; all of it is understood by every schema since 0001.
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
# Who stands behind whom is told by the server, so that a slow test is not taken for a slow server.
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
    """While the `with` lasts, some write, one reads everything in a transaction that it leaves open, one locks rows.

    `migrator` is the server process that is watched, `worst` the longest wait behind it so far, and of what;
    `errors` is what anybody met.
    """

    def __init__(self, dsn: str, migrator: int) -> None:
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
        for statement in STATEMENTS:
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
    """In which file each table and index lies: another one than before means that it was written anew."""
    query = """select relname, pg_relation_filenode(oid) from pg_class
        where relnamespace = 'pgflow'::regnamespace and relkind in ('r', 'i')"""
    return dict(rows(conn, query))
