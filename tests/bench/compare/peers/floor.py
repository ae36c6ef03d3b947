"""The floor: plain psycopg without an engine. One insert and one notification a job; the worker listens and updates."""

from __future__ import annotations

import psycopg

from tests.bench.compare.peers.contestant import Contestant
from tests.bench.compare.peers.mark import mark

TABLE = """
    create table jobs (id bigint generated always as identity primary key, sent bigint not null, state text not null);
    create index on jobs (id) where state = 'ready'
"""
INSERT = "insert into jobs (sent, state) values (%s, 'ready')"
NOTIFY = "select pg_notify('jobs', '')"
CLAIM = """
    update jobs set state = 'running'
    where id in (select id from jobs where state = 'ready' order by id limit 10 for update skip locked)
    returning id, sent
"""
END = "update jobs set state = 'completed' where id = any (%s)"
POLL_SECONDS = 1.0


class Floor(Contestant):
    """What any program on PostgreSQL has to do, and nothing else: no retries, no lease, no history."""

    done = "select not exists (select from jobs where state <> 'completed')"
    failed = "select count(*) from jobs where state <> 'completed'"

    def prepare(self) -> None:
        """Make the table."""
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            conn.execute(TABLE)

    def open(self) -> None:
        """Connect."""
        self.conn = psycopg.connect(self.dsn, autocommit=True)

    def start(self, kind: str, sent: int) -> None:
        """Insert one row and notify, in one transaction and one round trip."""
        with self.conn.pipeline():
            self.conn.execute(INSERT, [sent], prepare=True)
            self.conn.execute(NOTIFY, prepare=True)

    def start_many(self, kind: str, count: int) -> None:
        """It takes no part in this."""
        raise AssertionError(kind)

    def serve(self) -> None:
        """Claim, run and complete jobs until killed."""
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            conn.execute("listen jobs")
            while True:
                while claimed := conn.execute(CLAIM, prepare=True).fetchall():
                    for _, sent in claimed:
                        mark(sent)
                    conn.execute(END, [[number for number, _ in claimed]], prepare=True)
                list(conn.notifies(timeout=POLL_SECONDS, stop_after=1))


ENGINE = Floor
