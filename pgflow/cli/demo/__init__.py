"""`pgflow demo`: two hundred orders, two workers, one of them killed halfway, on a throwaway PostgreSQL."""

import json
import tempfile
import time
from pathlib import Path

import click

from pgflow.app import Pgflow
from pgflow.bench.worker_processes import WorkerProcesses
from pgflow.cli.demo.flow import OrderFlow, count_stock, send_receipt, stock
from pgflow.cli.demo.play import Report, play
from pgflow.cli.options import debug_option, json_option
from pgflow.cli.output import print_document, print_notice, table
from pgflow.embedded import EmbeddedPostgres

__all__ = ["command"]

WORKERS = 2
# Short intervals, so that the rescue is visible.
OPTIONS = ("--queue", "default=20", "--lease", "2", "--sweep", "0.5", "--poll", "0.5")


@click.command()
@json_option
@debug_option
def command(as_json: bool) -> int:
    """Process two hundred orders with two workers, and kill one of them halfway.

    Starts a throwaway PostgreSQL, installs pgflow in it, and starts two real worker processes. Each order passes a
    branch, a step that fails now and then, a fan-out with a join, a timer and a signal, and enqueues a task in the
    transaction that records its shipment. A schedule starts another task each second. When about half of the orders
    have reached their timer, one worker is killed with SIGKILL, and the other one rescues its jobs. The server and all
    its data are removed at the end.
    """
    began = time.monotonic()
    print_notice("Starting a throwaway PostgreSQL ...")
    with EmbeddedPostgres() as server, tempfile.TemporaryDirectory(prefix="pgflow-demo-") as logs:
        app = Pgflow(server.dsn, [OrderFlow], [send_receipt, count_stock], schedules=[stock])
        try:
            app.migrate()
            print_notice(f"  PostgreSQL {server.version} is up, with pgflow's schema in it.")
            flow = "pgflow.cli.demo.flow:app"
            with WorkerProcesses(server.dsn, Path(logs), app=flow, count=WORKERS, options=OPTIONS) as processes:
                report = play(processes)
        finally:
            app.close()
    seconds = time.monotonic() - began
    if as_json:
        print_document({**report.figures(), "seconds": round(seconds, 1), "history": report.history()})
    else:
        _print(report, seconds)
    return 0 if report.is_accounted_for else 1


def _print(report: Report, seconds: float) -> None:
    shown = report.shown
    click.echo(f"\nThe history of {shown.id}:\n")
    rows = []
    for entry in shown.history:
        at = entry.at.strftime("%H:%M:%S.%f")[:-3]
        rows.append([entry.step, entry.event, entry.attempt, entry.worker, at, json.dumps(entry.output)])
    click.echo(table(["STEP", "EVENT", "ATTEMPT", "WORKER", "AT", "OUTPUT"], rows))
    figures = report.figures()
    click.echo(
        f"""
{figures["orders"]} orders: {figures["shipped"]} shipped, {figures["rejected"]} rejected, {figures["missing"]} missing.
{figures["steps"]} steps, each recorded once ({figures["steps_expected"]} expected), in {report.seconds:.1f} s.
{figures["retried"]} payments were retried.
{figures["receipts"]} receipts were sent by tasks, one for each shipped order; {figures["resent"]} were retried.
The schedule fired {figures["fired"]} times, each instant once.
{figures["rescued"]} steps of the killed worker were rescued by the other one.
{seconds:.1f} s in total, including the server's start.
"""
    )
    click.echo("Every order is accounted for." if report.is_accounted_for else "NOT every order is accounted for.")
