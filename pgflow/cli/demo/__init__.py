"""`pgflow demo`: two hundred orders, two workers, one of them killed halfway, on a throwaway PostgreSQL."""

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import click
import psycopg

from pgflow.app import Pgflow
from pgflow.cli.demo.flow import OrderFlow
from pgflow.cli.options import debug_option, json_option
from pgflow.cli.output import document, say, table
from pgflow.errors import PgflowError
from pgflow.store import migrate
from pgflow.store.connect import connect
from pgflow.store.embedded import EmbeddedPostgres

__all__ = ["command"]

WORKERS = 2
LEASE = ("--lease", "2", "--sweep", "0.5", "--poll", "0.5")  # short, so that the rescue can be watched
PATIENCE_SECONDS = 50.0
SHOWN = "order-005"


@click.command()
@json_option
@debug_option
def command(as_json: bool) -> int:
    """See it work: two hundred orders through a workflow, two workers, one of them killed halfway.

    Starts a throwaway PostgreSQL, installs pgflow in it, and starts two real worker processes. Each order passes a branch, a
    step that fails now and then, a fan-out that joins again, a timer and a signal. When about half of the work is done, one
    worker is killed with SIGKILL; the other one takes over what it held. Nothing is left behind.
    """
    talk = _mute if as_json else say
    began = time.monotonic()
    talk("Starting a throwaway PostgreSQL ...")
    with EmbeddedPostgres() as server, tempfile.TemporaryDirectory(prefix="pgflow-demo-") as logs:
        with connect(server.dsn, "migrate") as conn:
            migrate.up(conn)
        talk(f"  PostgreSQL {server.version} is up, with pgflow's schema in it.")
        app = Pgflow(server.dsn, workflows=[OrderFlow])
        try:
            with workers(server.dsn, Path(logs)) as processes, connect(server.dsn) as conn:
                report = _play(app, conn, processes, talk)
                report["postgresql"] = server.version
        finally:
            app.close()
    report["seconds"] = round(time.monotonic() - began, 1)
    if as_json:
        click.echo(document(report))
    else:
        _print(report)
    return 0 if report["accounted_for"] else 1


@contextmanager
def workers(dsn: str, logs: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Run worker processes; whatever happens, none of them is left."""
    # Not the DSN's place on the command line, where everybody could read a password.
    environment = {**os.environ, "PGFLOW_DSN": dsn, "PGFLOW_SCHEMA": "pgflow"}
    line = [
        sys.executable,
        "-c",
        "from pgflow.cli import main; main()",
        "worker",
        "--app",
        "pgflow.cli.demo.flow:app",
        "--queue",
        "default=20",
        *LEASE,
    ]
    processes = []
    try:
        for number in range(1, WORKERS + 1):
            with (logs / f"worker-{number}.log").open("wb") as log:
                processes.append(subprocess.Popen(line, env=environment, stdout=log, stderr=log))
        yield processes
    except BaseException:
        for path in sorted(logs.glob("*.log")):
            say(f"{path.name}:\n{path.read_text(errors='replace')[-2000:]}")
        raise
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _play(
    app: Pgflow, conn: psycopg.Connection[Any], processes: list[subprocess.Popen[bytes]], talk: Any
) -> dict[str, Any]:
    orders = [json.loads(line) for line in files("pgflow.cli.demo").joinpath("orders.jsonl").read_text().splitlines()]
    began = time.monotonic()
    started = OrderFlow.start_many((order["value"], order["input"]) for order in orders)
    talk(f"  {len(started)} orders started in one statement ({1000 * (time.monotonic() - began):.0f} ms).")
    wanted = [order["value"] for order in orders if order["input"]["item_count"]]
    early, late = wanted[: len(wanted) // 2], wanted[len(wanted) // 2 :]
    for value in early:  # before the wait that takes it: it is kept
        OrderFlow.resume(value, "courier_arrived", {"name": "Ada"})
    talk(f"  {len(early)} couriers announced before anybody waits for them: kept in the mailbox.")
    steps = 2 * (len(orders) - len(wanted)) + 8 * len(wanted)
    _until(conn, processes, f"select count(*) >= {steps // 3} from pgflow.step_results")
    victim = processes[0]
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    held = _one(conn, "select count(*) from pgflow.jobs where state = 'running' and worker = 1") or _one(
        conn, "select count(*) from pgflow.jobs where state = 'running'"
    )
    talk(f"  Worker process {victim.pid} killed with SIGKILL, while {held} steps were in its hands or its neighbour's.")
    for value in late:
        OrderFlow.resume(value, "courier_arrived", {"name": "Grace"})
    _until(
        conn,
        processes[1:],
        "select not exists (select from pgflow.instances where status in ('pending', 'running', 'waiting'))",
    )
    took = time.monotonic() - began
    by_status = dict(conn.execute("select status, count(*) from pgflow.instances group by status").fetchall())
    recorded = _one(conn, "select count(*) from pgflow.step_results")
    shown = OrderFlow.get(SHOWN)
    return {
        "orders": len(orders),
        "by_status": by_status,
        "shipped": _one(conn, "select count(*) from pgflow.step_results where step = 'ship'"),
        "rejected": _one(conn, "select count(*) from pgflow.step_results where step = 'reject'"),
        "steps": recorded,
        "steps_expected": steps,
        "left": _one(
            conn,
            "select (select count(*) from pgflow.jobs) + (select count(*) from pgflow.step_results where not applied)",
        ),
        "retried": _one(conn, "select count(*) from pgflow.step_results where step = 'charge' and attempt > 1"),
        "rescued": _one(
            conn,
            'select count(*) from pgflow.step_results where errors @> \'[{"reason": "the worker was lost while the step ran"}]\'',
        ),
        "signals": _one(conn, "select count(*) from pgflow.signals where consumed_at is not null"),
        "run_seconds": round(took, 2),
        "steps_per_second": round(recorded / took),
        "history": [
            {
                "step": entry.step,
                "event": entry.event,
                "attempt": entry.attempt,
                "worker": entry.worker,
                "at": entry.at,
                "output": entry.output,
            }
            for entry in shown.history
        ],
        "accounted_for": by_status == {"completed": len(orders)} and recorded == steps,
    }


def _until(conn: psycopg.Connection[Any], processes: list[subprocess.Popen[bytes]], query: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not _one(conn, query):
        if any(process.poll() is not None for process in processes):
            raise PgflowError("a worker of the demo ended by itself", hint="What it said stands above.")
        if time.monotonic() > deadline:
            raise PgflowError(
                f"the demo was not done after {PATIENCE_SECONDS:.0f} s", hint="What the workers said stands above."
            )
        time.sleep(0.05)


def _one(conn: psycopg.Connection[Any], query: str) -> Any:
    row = conn.execute(query).fetchone()
    return row[0] if row else None


def _print(report: dict[str, Any]) -> None:
    click.echo(f"\nHistory of {SHOWN}:\n")
    rows = [
        [entry[name] for name in ("step", "event", "attempt", "worker", "at")] + [json.dumps(entry["output"])]
        for entry in report["history"]
    ]
    click.echo(table(["STEP", "EVENT", "ATTEMPT", "WORKER", "AT", "OUTPUT"], rows))
    click.echo(
        f"\n{report['orders']} orders: {report['shipped']} shipped, {report['rejected']} rejected, "
        f"{report['orders'] - report['shipped'] - report['rejected']} lost."
        f"\n{report['steps']} steps, each recorded once (expected: {report['steps_expected']}), in {report['run_seconds']} s: "
        f"{report['steps_per_second']} steps/s."
        f"\n{report['retried']} payments were tried again, {report['rescued']} steps of the killed worker were run by the other one, "
        f"{report['signals']} signals were consumed, {report['left']} tokens or results are left over."
        f"\nAll in {report['seconds']} s, the server's start included."
    )
    click.echo("\nEvery order is accounted for." if report["accounted_for"] else "\nNOT every order is accounted for.")


def _mute(text: str) -> None:
    logging.getLogger("pgflow.demo").debug(text)
