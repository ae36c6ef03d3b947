"""Programs that fork after they have used pgflow, one for each test in test_fork.py.

`python -m tests.worker.forking NAME DSN` runs one and prints what it found as JSON. Each runs in an interpreter of its
own, because forking pytest would copy its threads and servers.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import psycopg

from pgflow import Context, Done, Ok, Pgflow, Unique, Workflow, step, telemetry
from pgflow.database.connect import connect
from pgflow.embedded import EmbeddedPostgres
from pgflow.errors import PgflowError
from pgflow.local import Local
from tests.worker.waiting import until

PATIENCE = 60.0  # seconds for a child to end
CHILDREN = 2
FEW, MANY = 5, 40

Input = dict[str, Any]


@step
def end(ctx: Context[Input]) -> Ok:
    return Ok("done")


class Single(Workflow[Input], unique=Unique("single")):
    initial = end
    transitions = {end: {"done": Done}}


def watch(seconds: float) -> None:
    """End this process after so many seconds, with a traceback of each thread.

    Not by faulthandler.dump_traceback_later: a forked child waits for its thread for ever when it exits.
    """
    faulthandler.register(signal.SIGALRM, chain=True)
    signal.alarm(int(seconds))


class Child:
    """A forked child that runs `do` and reports its result, or the error, through a pipe."""

    def __init__(self, do: Callable[[], Any], leave: Callable[[int], Any] = os._exit) -> None:
        self._reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid:
            os.close(writing)
            return
        watch(PATIENCE)
        try:
            report: dict[str, Any] = {"result": do()}
        except Exception as error:
            traceback.print_exc()
            report = {"error": f"{type(error).__name__}: {error}"}
        os.write(writing, json.dumps(report).encode())
        os.close(writing)
        leave(0)

    def report(self) -> Any:
        """Wait for its end; returns its result. Kills it when it does not end."""
        with EndOf(self.pid) as code, os.fdopen(self._reading) as pipe:
            report = json.loads(pipe.read() or "{}")
        report["code"] = code()
        return report


class EndOf:
    """Waits for a process, and kills it when its time is over."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._code: int | None = None
        self._killer = threading.Timer(PATIENCE, os.kill, [pid, 9])

    def __enter__(self) -> Callable[[], int | None]:
        self._killer.start()
        return lambda: self._code

    def __exit__(self, *_: object) -> None:
        self._code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        self._killer.cancel()


def started(app: Pgflow, name: str, count: int = FEW) -> list[int]:
    """Start so many instances and return their runs; each answer must be the one to its own question."""
    runs = []
    for number in range(count):
        value = f"{name}-{number}"
        answer = app.start(Single, value, {"by": name})
        assert answer.id == f"single::{value}", answer
        read = app.get(Single, value)
        assert (read.run, read.input) == (answer.run, {"by": name}), read
        runs.append(answer.run)
    return runs


async def astarted(app: Pgflow, name: str, count: int = FEW) -> list[int]:
    """`started`, async."""
    runs = []
    for number in range(count):
        value = f"{name}-{number}"
        answer = await app.astart(Single, value, {"by": name})
        assert answer.id == f"single::{value}", answer
        assert (await app.aget(Single, value)).run == answer.run
        runs.append(answer.run)
    return runs


def sessions(dsn: str) -> dict[int, str]:
    """The sessions of pgflow's connections, by the process id of their servers, with when they began."""
    with psycopg.connect(dsn, application_name="observer") as conn:
        query = """select pid, backend_start::text from pg_stat_activity
            where datname = current_database() and application_name like 'pgflow:%'"""
        return dict(conn.execute(query).fetchall())


def backend(app: Pgflow) -> int:
    """The server process of the connection that a sync call of this process uses."""
    with app._transport.pool.connection() as conn:
        row = conn.execute("select pg_backend_pid()").fetchone()
    assert row is not None
    return int(row[0])


async def abackend(app: Pgflow) -> int:
    """`backend`, of a call in this event loop."""
    async with app._transport.pool.aconnection() as conn:
        row = await (await conn.execute("select pg_backend_pid()")).fetchone()
    assert row is not None
    return int(row[0])


# -- programs


def children(dsn: str) -> Any:
    """A parent that has listed forks two children; all three start and read at the same time."""
    app = Pgflow(dsn, workflows=[Single])
    app.list()
    before = backend(app)
    forked = [Child(lambda name=f"child-{n}": started(app, name, MANY)) for n in range(CHILDREN)]  # type: ignore[misc]
    mine = started(app, "parent", MANY)
    reports = [each.report() for each in forked]
    return {"mine": mine, "children": reports, "same_session": before in sessions(dsn), "all": len(app.list(limit=500))}


def exits(dsn: str, how: str) -> Any:
    """A child ends in some way, without a call or after one; the parent's session stays."""
    app = Pgflow(dsn, workflows=[Single])
    app.list()
    of_loop = asyncio.run(abackend(app))
    until(lambda: of_loop not in sessions(dsn), "the end of the event loop's session")
    before, seen = backend(app), sessions(dsn)

    def collect() -> None:
        nonlocal app
        app = None  # type: ignore[assignment]
        gc.collect()

    def use_inherited() -> str:
        with inherited:
            try:
                inherited.execute("select 1")
            except psycopg.OperationalError:
                return "refused"
        return "answered"

    inherited = connect(dsn, "worker")
    kinds: dict[str, tuple[Callable[[], Any], Callable[[int], Any]]] = {
        "os._exit": (lambda: None, os._exit),
        "sys.exit": (lambda: None, sys.exit),
        "sys.exit after a call": (lambda: started(app, "child"), sys.exit),
        "app.close": (lambda: app.close(), sys.exit),
        "app.aclose": (lambda: asyncio.run(app.aclose()), sys.exit),
        "garbage": (collect, sys.exit),
        "an inherited connection": (use_inherited, sys.exit),
    }
    do, leave = kinds[how]
    report = Child(do, leave).report()
    inherited.execute("select 1")
    kept = seen.items() <= sessions(dsn).items()
    return {"child": report, "kept": kept, "same_session": backend(app) == before, "mine": started(app, "parent")}


def busy(dsn: str) -> Any:
    """Threads and an event loop of the parent call without a break while it forks again and again."""
    app = Pgflow(dsn, workflows=[Single])
    collector = telemetry.Collector()
    collector.attach()
    app.list()
    stop = threading.Event()
    done: list[int] = []

    def call(number: int) -> None:
        for turn in range(100_000):
            if stop.is_set():
                return
            done.extend(started(app, f"thread-{number}-{turn}", 1))

    def attach() -> None:
        while not stop.is_set():
            telemetry.attach("handler", telemetry.events(), lambda event, config: None)
            telemetry.detach("handler")

    async def acall() -> None:
        for turn in range(100_000):
            if stop.is_set():
                return
            done.extend(await astarted(app, f"loop-{turn}", 1))

    def child(number: int) -> list[int]:
        telemetry.attach("child", telemetry.events(), lambda event, config: None)
        telemetry.detach("child")
        collector.read()
        return [*started(app, f"child-{number}", 2), *asyncio.run(astarted(app, f"achild-{number}", 2))]

    threads = [threading.Thread(target=call, args=[number]) for number in range(2)]
    threads += [threading.Thread(target=attach), threading.Thread(target=lambda: asyncio.run(acall()))]
    for each in threads:
        each.start()
    reports = [Child(lambda n=number: child(n), sys.exit).report() for number in range(8)]  # type: ignore[misc]
    stop.set()
    for each in threads:
        each.join()
    return {"children": reports, "mine": done}


def aparent(dsn: str) -> Any:
    """A parent that has used the async client forks; its child runs an event loop of its own, also from within one."""
    app = Pgflow(dsn, workflows=[Single])
    asyncio.run(app.alist())
    after = Child(lambda: asyncio.run(astarted(app, "after")), sys.exit).report()

    async def fork_within() -> Any:
        await app.alist()
        child = Child(lambda: asyncio.run(astarted(app, "within")), os._exit)
        mine = await astarted(app, "parent")
        return [await asyncio.to_thread(child.report), {"result": mine, "code": 0}]

    return {"children": [after, *asyncio.run(fork_within())]}


def grandchildren(dsn: str) -> Any:
    """A child that has called forks another one."""
    app = Pgflow(dsn, workflows=[Single])
    app.list()

    def child() -> Any:
        mine = started(app, "child")
        inner = Child(lambda: started(app, "grandchild"), sys.exit)
        more = started(app, "child-again")
        return {"mine": [*mine, *more], "inner": inner.report()}

    outer = Child(child, sys.exit).report()
    return {"outer": outer, "mine": started(app, "parent")}


POOLED: Pgflow


def pooled(number: int) -> list[int]:
    return started(POOLED, f"pooled-{number}", 2)


def pool(dsn: str) -> Any:
    """A `multiprocessing` pool of forked processes."""
    global POOLED
    POOLED = Pgflow(dsn, workflows=[Single])
    POOLED.list()
    before = backend(POOLED)
    with multiprocessing.get_context("fork").Pool(3) as workers:
        runs = workers.map_async(pooled, range(12)).get(PATIENCE)
    return {
        "runs": [run for each in runs for run in each],
        "mine": started(POOLED, "parent"),
        "same_session": backend(POOLED) == before,
    }


def spawned(dsn: str) -> Any:
    """Programs that are started, not forked, leave the parent's connections alone."""
    app = Pgflow(dsn, workflows=[Single])
    app.list()
    before = backend(app)
    subprocess.run([sys.executable, "-c", "pass"], check=True, close_fds=False)
    pid = os.posix_spawn(sys.executable, [sys.executable, "-c", "pass"], dict(os.environ))
    os.waitpid(pid, 0)
    return {"same_session": backend(app) == before, "mine": started(app, "parent")}


def without_hooks(dsn: str) -> Any:
    """Fork by libc, without Python's hooks, as uWSGI does."""
    import ctypes

    app = Pgflow(dsn, workflows=[Single])
    app.list()
    before = backend(app)
    reading, writing = os.pipe()
    pid = ctypes.PyDLL(None).fork()
    if not pid:
        try:
            result = {"runs": started(app, "child"), "backend": backend(app)}
            os.write(writing, json.dumps({"result": result}).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with EndOf(pid) as code, os.fdopen(reading) as pipe:
        report = json.loads(pipe.read() or "{}")
    return {
        "child": {**report, "code": code()},
        "backend": before,
        "same_session": backend(app) == before,
        "mine": started(app, "parent"),
    }


def local(dsn: str) -> Any:
    """A `Local` in a forked child refuses at once, also while the parent works; the parent's goes on."""
    stop = threading.Event()
    with Local(workflows=[Single]) as app:
        app.start(Single, "before", {})

        def call(number: int) -> None:
            for turn in range(100_000):
                if stop.is_set():
                    return
                app.start(Single, f"{number}-{turn}", {})
                app.storage.get(f"single::{number}-{turn}")

        threads = [threading.Thread(target=call, args=[number]) for number in range(3)]
        for each in threads:
            each.start()

        def child() -> list[str]:
            refused = []
            for ask in (
                lambda: app.start(Single, "child", {}),
                lambda: app.get(Single, "before"),
                lambda: app.list(),
                lambda: app.jobs(),
                lambda: app.drain(timeout=1),
                lambda: app.storage.query(),
                lambda: app.storage.delete("single::before"),
                lambda: asyncio.run(app.astart(Single, "child", {})),
            ):
                try:
                    ask()
                except PgflowError as error:
                    refused.append(f"{type(error).__name__}: {error}")
            app.close()
            with Local(workflows=[Single]) as mine:
                Single.start("own", {})
                mine.drain(timeout=PATIENCE)
                refused.append(Single.get("own").status)
            return refused

        reports = [Child(child, sys.exit).report() for _ in range(5)]
        stop.set()
        for each in threads:
            each.join()
        app.drain(timeout=PATIENCE)
        status = app.get(Single, "before").status
    return {"children": reports, "status": status, "pid": os.getpid()}


def embedded(dsn: str) -> Any:
    """A forked child can neither stop a throwaway server of its parent nor start it again."""
    never = EmbeddedPostgres(durable=False)
    with EmbeddedPostgres(durable=False) as server:

        def child() -> list[Any]:
            refused: list[Any] = [server.running]
            for act in (server.start, server.halt, server.crash, server.kill):
                try:
                    act()
                except PgflowError as error:
                    refused.append(str(error))
            server.stop()
            with never:
                refused.append(never.running)
            return [*refused, never.running]

        reports = [Child(child, sys.exit).report(), Child(lambda: None, sys.exit).report()]

        pid = os.fork()
        if not pid:
            sys.exit(3)  # leaves the `with` of its parent's server
        with EndOf(pid) as code:
            pass
        with psycopg.connect(server.dsn) as conn:
            row = conn.execute("select 7").fetchone()
        return {"children": reports, "code": code(), "answer": row and row[0], "pid": os.getpid()}


def main() -> None:
    name, dsn, *args = sys.argv[1:]
    watch(2 * PATIENCE)
    began = time.monotonic()
    found = globals()[name](dsn, *args)
    print(json.dumps({"found": found, "seconds": time.monotonic() - began}))


if __name__ == "__main__":
    main()
