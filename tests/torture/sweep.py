"""Lose every commit, and every answer to a commit, one by one, and check the outcome.

`python -m tests.torture.sweep` loses them all, in some minutes; the default suite takes a sample. Each act of `acts.py`
is played once without a fault, to count the commit points of each role; then once for each commit point and each way
to lose it, with rows and a worker of its own.

    python -m tests.torture.sweep --act waiting --role worker --kind 'reply lost' --nth 7     # one of them again
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from queue import SimpleQueue
from typing import get_args

import psycopg
import pytest

from pgflow import Pgflow
from pgflow.database.connect import Connection, connect
from pgflow.embedded import EmbeddedPostgres
from pgflow.errors import Unreachable
from pgflow.migrations.migrate import up
from tests.torture.acts import ACTS, LEDGER, WORKFLOWS, Scene
from tests.torture.wire.active_rules import COMMIT_POINT, WireEvent
from tests.torture.wire.proxy import Proxy, upstream_of
from tests.torture.wire.rule import COMMITS, Kind, Rule
from tests.worker.db_helpers import leftovers, rows
from tests.worker.thread_worker import Inside
from tests.worker.waiting import BUSY, until

KINDS: tuple[Kind, ...] = tuple(kind for kind in get_args(Kind) if kind in COMMITS)
ROLES = ("client", "worker", "step", "heart", "listen")
LEASE = timedelta(seconds=2)
IN_TIME = LEASE.total_seconds() + 2 + BUSY  # an act takes less than two seconds, if the machine does nothing else
LANES = 4
NUMBERS = count(1)


@dataclass(frozen=True, slots=True)
class Loss:
    """Which commit point is lost in which way: the `nth` of the connections with a role, in an act."""

    act: str
    role: str
    kind: Kind
    nth: int

    def __str__(self) -> str:
        return f"--act {self.act} --role {self.role} --kind '{self.kind}' --nth {self.nth}"


@dataclass(frozen=True, slots=True)
class Played:
    """How an act went: how long it took, its commit points, and what was lost, if it came to that."""

    seconds: float
    points: tuple[WireEvent, ...]
    lost: WireEvent | None


class Lane:
    """A database for one act at a time, with a door to it; with `pooler`, client and worker behave as behind one."""

    def __init__(self, dsn: str, stack: ExitStack, *, pooler: bool = False) -> None:
        self.dsn = dsn
        self._pooler = pooler
        self.events: list[WireEvent] = []
        self.proxy = stack.enter_context(Proxy(upstream_of(dsn), notify=self.events.append))
        self.through = self.proxy.door("lane").through(dsn)
        self.conn: Connection = stack.enter_context(connect(dsn, "test"))
        self.conn.execute(LEDGER)
        self.past = Pgflow(dsn, workflows=WORKFLOWS)
        self.past.register()
        stack.callback(self.past.close)

    def play(self, act: str, loss: Loss | None = None) -> Played:
        """Play an act, and check that everything ended as it should, once, and in time. Raises `AssertionError`."""
        self.events.clear()
        if loss is not None:
            self.proxy.inject(Rule(loss.kind, role=f"pgflow:{loss.role}", nth=loss.nth))
        began = time.monotonic()
        client = Pgflow(self.through, workflows=WORKFLOWS, pooler=self._pooler, name="client")
        scene = Scene(client, lambda whole: self.past.storage.get(whole), f"{act}-{next(NUMBERS)}")
        try:
            with self._worker():
                ACTS[act](scene)
                until(self._has_ended, "the end of all instances", patience=IN_TIME, pause=0.01)
                seconds = time.monotonic() - began
        finally:
            client.close()
            self.proxy.heal()
        until(lambda: self.proxy.sessions() == 0, "the end of all connections")
        self._check(scene, seconds)
        lost = [each for each in self.events if each.what != COMMIT_POINT]
        assert len(lost) <= 1
        return Played(
            seconds, tuple(each for each in self.events if each.what == COMMIT_POINT), lost[0] if lost else None
        )

    @contextmanager
    def _worker(self) -> Iterator[None]:
        """Run a worker; one that cannot start is started again, as a service manager does."""
        app = Pgflow(self.through, workflows=WORKFLOWS, pooler=self._pooler, name="worker")
        with ExitStack() as stack:
            for _ in range(2):
                with suppress(psycopg.OperationalError, Unreachable):
                    stack.enter_context(Inside(app, lease=LEASE))
                    break
            else:
                pytest.fail("the worker does not start")
            yield

    def _has_ended(self) -> bool:
        query = "select id, status from pgflow.instances where status in ('pending', 'running', 'waiting')"
        return not rows(self.conn, query)

    def _check(self, scene: Scene, seconds: float) -> None:
        """Compare the database with what the act expects. (pytest does not rewrite these asserts.)"""
        left = leftovers(self.conn)
        assert not left, left
        assert seconds < IN_TIME, seconds
        query = """
            select split_part(i.id, '::', 2), i.status,
                array(select r.step from pgflow.step_results r where r.run = i.run order by r.step),
                array(select l.step from ledger l where l.run = i.run order by l.step),
                (select count(*) from pgflow.signals s where s.run = i.run),
                (select count(*) from pgflow.signals s where s.run = i.run and s.consumed_at is null)
            from pgflow.instances i where i.id like %s order by i.id
        """
        found = rows(self.conn, query, f"%::{scene.name}-%")
        wanted = [
            (value, end.status, sorted(end.steps), sorted(end.writes), end.signals, 0)
            for value, end in scene.expected.items()
        ]
        assert sorted(found) == sorted(wanted), f"found {found}, wanted {wanted}"


@contextmanager
def lanes(dsns: Sequence[str], *, pooler: bool = False) -> Iterator[SimpleQueue[Lane]]:
    """Give lanes on these databases, which have pgflow in them, for those who play to take and put back."""
    with ExitStack() as stack:
        free: SimpleQueue[Lane] = SimpleQueue()
        for dsn in dsns:
            free.put(Lane(dsn, stack, pooler=pooler))
        yield free


def losses(act: str, points: Iterable[WireEvent]) -> list[Loss]:
    """Return every way to lose one of these commit points."""
    counted = Counter(each.role.removeprefix("pgflow:") for each in points)
    return [Loss(act, role, kind, n) for role in ROLES for n in range(1, counted[role] + 1) for kind in KINDS]


def sample(of: Sequence[Loss], size: int, seed: int) -> list[Loss]:
    """Return some of them."""
    return random.Random(seed).sample(of, min(size, len(of)))  # noqa: S311 -- a seed is to repeat it


def sweep(free: SimpleQueue[Lane], chosen: Sequence[Loss]) -> Iterator[tuple[Loss, Played | BaseException]]:
    """Play each of them, several at a time, and yield how it went."""

    def play(loss: Loss) -> Played | BaseException:
        lane = free.get()
        try:
            return lane.play(loss.act, loss)
        except BaseException as error:  # also pytest's own, which is none of Exception's
            return error
        finally:
            free.put(lane)

    with ThreadPoolExecutor(max_workers=LANES) as players:
        yield from zip(chosen, players.map(play, chosen), strict=True)


def main(arguments: Sequence[str]) -> int:
    """Sweep, and print what went wrong and how much was covered."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture.sweep")
    parser.add_argument("--act", choices=ACTS)
    parser.add_argument("--role", choices=ROLES)
    parser.add_argument("--kind", choices=KINDS)
    parser.add_argument("--nth", type=int)
    parser.add_argument("--pooler", action="store_true", help="as behind a connection pooler")
    given = parser.parse_args(arguments)
    logging.disable()
    with EmbeddedPostgres(durable=False) as server:
        with connect(server.create_database("model"), "migrate") as conn:
            up(conn)
        dsns = [server.create_database(f"lane_{number}", "model") for number in range(LANES)]
        with lanes(dsns, pooler=given.pooler) as free:
            lane = free.get()
            whole = {act: lane.play(act) for act in ACTS if given.act in (None, act)}
            free.put(lane)
            chosen = [
                loss
                for act, played in whole.items()
                for loss in losses(act, played.points)
                if given.role in (None, loss.role) and given.kind in (None, loss.kind) and given.nth in (None, loss.nth)
            ]
            return _report(chosen, list(sweep(free, chosen)), whole)


def _report(
    chosen: Sequence[Loss], played: Sequence[tuple[Loss, Played | BaseException]], whole: dict[str, Played]
) -> int:
    slowest = 0.0
    applied: Counter[str] = Counter()
    failed = 0
    hit: set[tuple[str, str, tuple[str, ...]]] = set()
    for loss, came in played:
        if isinstance(came, BaseException):
            failed += 1
            print(f"{loss}\n    {type(came).__name__}: {came}")
        elif came.lost is not None:
            applied[loss.kind] += 1
            hit.add((loss.kind, came.lost.role, came.lost.statements))
            slowest = max(slowest, came.seconds)
    seen = {(point.role, point.statements) for each in whole.values() for point in each.points}
    print(f"{len(chosen)} losses, {failed} failed; slowest {slowest:.1f} s")
    for kind in KINDS:
        missed = sorted(key for key in seen if (kind, *key) not in hit)
        print(f"{kind}: applied {applied[kind]} times; commit points that it never met: {len(missed)} of {len(seen)}")
        for role, statements in missed:
            print(f"    {role}: {'; '.join(statements)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
