"""Limits under real worker processes that are killed, stopped beyond their lease, and lose their database.

`python -m tests.torture.limits.workers --seconds 120` keeps four workers busy in queues with each kind of limit. Then
two views are judged. *The database's*: the places that running jobs take, from claim to release, never exceed a limit,
and rates hold in every window. *The bodies'*: the same for what the tasks themselves wrote down at their beginning and
end, as long as their worker holds their job. A process that was stopped for longer than its lease goes on with bodies
whose jobs others have taken over; they are counted, and each must have lost its lease before. In the end each job that
was enqueued has completed, and each queue is full to its limit again: no place has leaked.
"""

from __future__ import annotations

import json
import logging
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import click
import psycopg

from pgflow.app import Pgflow
from pgflow.database.arrays import Texts
from pgflow.database.connect import Connection, connect
from pgflow.errors import PgflowError
from pgflow.migrations.migrate import up
from tests.torture.host.cluster import Cluster
from tests.torture.limits import jobs
from tests.torture.limits.overlaps import (
    NEVER,
    Body,
    Hold,
    Span,
    excesses,
    overfull_windows,
    peak,
    ran_without_a_place,
    spans_of,
)
from tests.torture.trial.journal import lines
from tests.torture.workers.fleet import LEASE, Fleet, WorkerSlot

__all__ = ["Report", "prove"]

AUDIT = Path(__file__).with_name("audit.sql")
WORKERS = 4
ROOM = 15  # jobs of each queue that a worker may hold: together more than any limit
BACKLOG = 120  # jobs of each queue that are kept waiting
TENANTS = 12
STOP_SECONDS = 1.7 * LEASE
READY_SECONDS, DRAIN_SECONDS, FULL_SECONDS = 60.0, 90.0, 60.0
FULL_PAUSE = 0.5
FAULTS = (psycopg.Error, PgflowError, OSError)
# The limits of the tasks' queues, as below.
SHARED, KEYED, TENANT, FIRST_TENANT, RATE, BURST = 6, 10, 2, 1, 50, 5
LIMITS: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("shared", {"concurrency": SHARED}),
    ("keyed", {"concurrency": KEYED, "key_concurrency": TENANT}),
    ("keyed", {"key": "tenant-0", "concurrency": FIRST_TENANT}),
    ("rated", {"rate": RATE, "burst": BURST}),
)
FULL = {"shared": SHARED, "keyed": KEYED, "tenant-0": FIRST_TENANT, "tenant-1": TENANT}
QUEUE_LIMITS = {"shared": SHARED, "keyed": KEYED}
KEY_LIMITS = {("keyed", ""): TENANT, ("keyed", "tenant-0"): FIRST_TENANT}
SET = "select pgflow.set_limit(queue => %(queue)s, is_new => true, {})"
ENQUEUE = "select id from pgflow.enqueue_many(%(task)s, %(args)b::text[])"
WAITING = "select queue, count(*) from pgflow.jobs where state in ('ready', 'scheduled') group by queue"
HOLDS = """
    select s.job, s.queue, coalesce(s.key, ''), s.cost, w.pid,
        extract(epoch from s.clock)::float8, extract(epoch from r.clock)::float8, r.was_leased
    from audit.starts s
    join audit.pids w on w.id = s.worker
    left join lateral (
        select r.clock, r.was_leased from audit.releases r
        where r.job = s.job and r.worker = s.worker and r.clock >= s.clock order by r.clock limit 1
    ) r on true
    order by s.clock
"""
# A worker's row is deleted some time after its lease has ended.
PIDS = """
    create index on audit.releases (job, worker);
    create table audit.pids as select id, pid from pgflow.workers;
    create function audit.note_pid() returns trigger language plpgsql as $$
    begin
        insert into audit.pids values (new.id, new.pid);
        return null;
    end $$;
    create trigger note_pid after insert on pgflow.workers for each row execute function audit.note_pid();
"""
STARTS = "select extract(epoch from at)::float8, cost from audit.starts where queue = 'rated' order by at"


@dataclass(slots=True)
class Report:
    """What happened, and what must not have.

    `late` are the bodies that went on after their process had lost its lease. `peaks` are the most places that bodies
    took at once, `full` the same at the end.
    """

    jobs: int = 0
    bodies: int = 0
    killed: int = 0
    stopped: int = 0
    restarts: int = 0
    rescued: int = 0
    late: int = 0
    drained: float = 0.0
    peaks: dict[str, int] = field(default_factory=dict)
    full: dict[str, int] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)


def prove(folder: Path, seconds: float, *, seed: int = 1, notify: Callable[[str], None] = lambda text: None) -> Report:
    """Run the proof, with its journal and logs in `folder`; faults come for that many seconds, at least once each."""
    with Cluster() as cluster:
        with connect(cluster.dsn, "migrate") as conn:
            up(conn)
            conn.execute(AUDIT.read_text().encode(), prepare=False)
            conn.execute(PIDS.encode(), prepare=False)
        with closing(Pgflow(cluster.dsn, tasks=jobs.TASKS)) as app:
            app.register()
        with connect(cluster.dsn, "test") as conn:
            for queue, limits in LIMITS:
                options = ", ".join(f"{name} => %({name})s" for name in limits)
                conn.execute(SET.format(options).encode(), {"queue": queue, **limits})
        slots = [WorkerSlot(f"worker-{n}", cluster.dsn, folder / f"worker-{n}.log") for n in range(1, WORKERS + 1)]
        queues = [f"{queue}={ROOM}" for queue in jobs.QUEUES]
        with Fleet(folder, slots, app=f"{jobs.__name__}:app", queues=queues) as fleet:
            run = _Run(folder, cluster, fleet, random.Random(seed), notify)  # noqa: S311 -- repeatable, not secret
            return run.run(seconds)


class _Run:
    def __init__(
        self, folder: Path, cluster: Cluster, fleet: Fleet, dice: random.Random, notify: Callable[[str], None]
    ) -> None:
        self.report = Report()
        self._folder = folder
        self._cluster = cluster
        self._fleet = fleet
        self._dice = dice
        self._notify = notify
        self._acknowledged: set[int] = set()
        self._stop = threading.Event()
        self._holds: list[Hold] = []

    def run(self, seconds: float) -> Report:
        if not all(slot.until_ready(READY_SECONDS) for slot in self._fleet.slots):
            raise TimeoutError("the workers did not become ready")
        producer = threading.Thread(target=self._produce, name="producer", daemon=True)
        producer.start()
        end = time.monotonic() + seconds
        while not self.report.restarts or time.monotonic() < end:
            self._disturb()
        self._stop.set()
        producer.join()
        self._drain()
        last = self._last_job()
        self._fill(last)
        self._fleet.end()
        self._judge()
        return self.report

    # -- load

    def _produce(self) -> None:
        """Keep jobs waiting in each queue, also while the database is away."""
        while not self._stop.is_set():
            with suppress(*FAULTS), connect(self._cluster.dsn, "test") as conn:
                while not self._stop.wait(0.05):
                    waiting: dict[str, int] = dict(conn.execute(WAITING).fetchall())
                    for queue in jobs.QUEUES:
                        if waiting.get(queue, 0) < BACKLOG:
                            self._enqueue(conn, *self._batch(queue))

    def _batch(self, queue: str) -> tuple[str, list[str]]:
        """Return a task of a queue, and arguments for some calls of it."""
        dice = self._dice
        task = {"shared": ("narrow", "narrow", "broad"), "keyed": ("keyed",), "rated": ("rated", "costly")}
        name = dice.choice(task.get(queue, (queue,)))
        pauses = [round(dice.choice((0.0, dice.uniform(0.0, 0.1), dice.uniform(0.1, 0.5))), 3) for _ in range(20)]
        args: list[dict[str, Any]] = [{"pause": pause} for pause in pauses]
        if queue == "keyed":
            for each in args:
                each["tenant"] = f"tenant-{dice.randrange(TENANTS)}"
        return name, [json.dumps(each) for each in args]

    def _enqueue(self, conn: Connection, task: str, args: list[str]) -> None:
        rows = conn.execute(ENQUEUE, {"task": task, "args": Texts(args)}).fetchall()
        self._acknowledged.update(row[0] for row in rows)

    # -- faults

    def _disturb(self) -> None:
        """Kill one worker, stop another beyond its lease, and restart the database."""
        killed, stopped = self._dice.sample(list(self._fleet.slots), 2)
        time.sleep(self._dice.uniform(0.5, 1.5))
        if killed.send(signal.SIGKILL) is not None:
            self.report.killed += 1
            self._notify(f"{killed.name} killed")
        time.sleep(self._dice.uniform(0.2, 0.5))
        is_stopped = stopped.is_ready and stopped.send(signal.SIGSTOP) is not None
        time.sleep(STOP_SECONDS if is_stopped else 0.0)
        if is_stopped:
            stopped.send(signal.SIGCONT)
            self.report.stopped += 1
            self._notify(f"{stopped.name} was stopped for {STOP_SECONDS:g} s")
        time.sleep(self._dice.uniform(0.2, 0.5))
        self._notify(f"database restarted, away for {self._cluster.restart():.1f} s")
        self.report.restarts += 1
        time.sleep(1.0)

    # -- the end

    def _drain(self) -> None:
        began = time.monotonic()
        while self._left() and time.monotonic() < began + DRAIN_SECONDS:
            time.sleep(0.1)
        self.report.drained = time.monotonic() - began

    def _left(self) -> int:
        with connect(self._cluster.dsn, "test") as conn:
            ((count,),) = conn.execute("select count(*) from pgflow.jobs").fetchall()
            return int(count)

    def _last_job(self) -> int:
        with connect(self._cluster.dsn, "test") as conn:
            ((last,),) = conn.execute("select coalesce(max(id), 0) from pgflow.task_results").fetchall()
            return int(last)

    def _fill(self, last: int) -> None:
        """Enqueue until each queue is full once, or for so many seconds."""
        full, deadline = self.report.full, time.monotonic() + FULL_SECONDS
        while full != FULL and time.monotonic() < deadline:
            # Of all tenants one job each, so that the queue is full; then of two tenants more than they may have.
            for tenants in ([f"tenant-{n}" for n in range(TENANTS)], ["tenant-0", "tenant-1"] * 2 * TENANT):
                with connect(self._cluster.dsn, "test") as conn:
                    self._enqueue(conn, "narrow", [json.dumps({"pause": FULL_PAUSE})] * 2 * SHARED)
                    self._enqueue(
                        conn, "keyed", [json.dumps({"pause": FULL_PAUSE, "tenant": each}) for each in tenants]
                    )
                self._drain()
            self._match()
            spans = [span for span in spans_of(self._holds, of_bodies=True) if span.job > last]
            full.update(_peaks(spans))
        self.report.violations += [
            f"{name} is not full again: {full.get(name)} of {places} after {FULL_SECONDS:g} s"
            for name, places in FULL.items()
            if full.get(name) != places
        ]

    def _match(self) -> tuple[int, list[str]]:
        """Read what was claimed and what ran."""
        with connect(self._cluster.dsn, "test") as conn:
            rows = conn.execute(HOLDS).fetchall()
        self._holds = [Hold(*row[:6], *((NEVER, True) if row[6] is None else row[6:])) for row in rows]
        bodies: dict[str, Body] = {}
        for line in lines(self._folder / jobs.BODIES):
            if line["e"] == "begin":
                bodies[line["nonce"]] = Body(line["job"], line["pid"], line["t"])
            else:
                bodies[line["nonce"]].end = line["t"]
        self.report.bodies = len(bodies)
        return ran_without_a_place(self._holds, bodies.values())

    def _judge(self) -> None:
        report = self.report
        report.late, faults = self._match()
        with connect(self._cluster.dsn, "test") as conn:
            ended: dict[int, str] = dict(conn.execute("select id, status from pgflow.task_results").fetchall())
            found = conn.execute("select what from audit.violations").fetchall()
            starts = conn.execute(STARTS).fetchall()
            left = conn.execute("select id, step, state from pgflow.jobs").fetchall()
        report.jobs = len(ended)
        report.rescued = sum(not hold.was_leased for hold in self._holds)
        held, ran = spans_of(self._holds, of_bodies=False), spans_of(self._holds, of_bodies=True)
        report.peaks = _peaks(ran)
        report.violations += [
            *faults,
            *(what for (what,) in found),
            *excesses("held", held, QUEUE_LIMITS, KEY_LIMITS),
            *excesses("ran", ran, QUEUE_LIMITS, KEY_LIMITS),
            *overfull_windows("rate", starts, RATE, BURST),
            *(f"stranded: job {number} of {task} is {state}" for number, task, state in left),
            *(
                f"job {number} is {ended.get(number, 'lost')}"
                for number in sorted(self._acknowledged)
                if ended.get(number) != "completed"
            ),
        ]


def _peaks(spans: Sequence[Span]) -> dict[str, int]:
    """Return the most places that were taken at once, of what `FULL` names."""
    of_keys = {key: [span for span in spans if span.key == key] for key in ("tenant-0", "tenant-1")}
    of_queues = {queue: [span for span in spans if span.queue == queue] for queue in QUEUE_LIMITS}
    return {name: peak(found, FULL[name])[0] for name, found in {**of_queues, **of_keys}.items()}


@click.command()
@click.option("--seconds", type=click.FloatRange(1), default=60.0, help="How long there are faults.")
@click.option("--seed", type=int, default=1, help="Seed of all that is random.")
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), help="Keep logs and the journal here.")
def main(seconds: float, seed: int, folder: Path | None) -> None:
    """Prove the limits of four workers; the exit code is 1 if one was exceeded, or a place or a job was lost."""
    logging.getLogger("psycopg").addHandler(logging.NullHandler())  # outages are intended here
    with tempfile.TemporaryDirectory(prefix="pgflow-limits-") as temporary:
        place = folder or Path(temporary)
        place.mkdir(parents=True, exist_ok=True)
        report = prove(place, seconds, seed=seed, notify=lambda text: click.echo(text, err=True))
    shown = asdict(report)
    violations = shown.pop("violations")
    click.echo(", ".join(f"{name} {value}" for name, value in shown.items()))
    click.echo(f"{len(violations)} violations" + "".join(f"\n  {each}" for each in violations[:20]))
    sys.exit(1 if violations else 0)


if __name__ == "__main__":
    main()
