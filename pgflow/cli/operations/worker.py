"""`pgflow worker`: run the steps of workflows until told to stop."""

import asyncio
import gc
import logging
import os
import signal
import sys
import threading
from dataclasses import asdict
from datetime import timedelta

import click
from click.core import ParameterSource

from pgflow import telemetry
from pgflow.cli.app_loader import load_app
from pgflow.cli.error_reporting import report
from pgflow.cli.operations.health import ADDRESS, answering
from pgflow.cli.operations.init_process import fork_if_pid_1
from pgflow.cli.options import app_option, database_options, json_option
from pgflow.cli.output import document, printable
from pgflow.cli.parameters import Duration
from pgflow.config import parse_queues
from pgflow.database.connect import connect
from pgflow.database.dsn import parse
from pgflow.errors import PgflowError
from pgflow.logs import Logger
from pgflow.migrations import migrate
from pgflow.worker import Worker
from pgflow.worker.heartbeat_process import HeartbeatProcess
from pgflow.worker.loop import run

__all__ = ["command"]

log = Logger("pgflow.worker")

GIVE_BACK_SECONDS = 1.0  # for giving tokens back when a second signal has come
KILLED = 130  # the exit code of a program that a signal ended
ABANDONED = 75  # of one that had to leave a step behind
SELDOM = 10_000  # objects that come and stay until Python looks for garbage among them


@click.command()
@app_option
@click.option(
    "-q",
    "--queue",
    "queues",
    multiple=True,
    default=["default=10"],
    metavar="NAME=LIMIT",
    help="A queue to serve, and how many of its steps run at once. May be given several times. "
    "Each transactional step that runs has a connection of its own.",
)
@click.option(
    "--poll",
    type=Duration(timedelta(milliseconds=10), timedelta(hours=1), bare=True),
    default="1s",
    metavar="DURATION",
    help="How often to look for work when nobody wakes it.",
)
@click.option(
    "--lease",
    type=Duration(timedelta(milliseconds=500), timedelta(hours=1), bare=True),
    default="30s",
    metavar="DURATION",
    help="How long a step stays this worker's without a heartbeat.",
)
@click.option(
    "--sweep",
    type=Duration(timedelta(milliseconds=100), timedelta(hours=1), bare=True),
    default="5s",
    metavar="DURATION",
    help="How often to look for steps of dead workers.",
)
@click.option(
    "--shutdown-timeout",
    type=Duration(timedelta(0), timedelta(days=1), bare=True),
    default="25s",
    metavar="DURATION",
    help="How long running steps may go on after SIGTERM before they are given back.",
)
@click.option(
    "--listen/--no-listen",
    default=None,
    show_default="listen, but not behind a pooler",
    help="Be woken by NOTIFY. Polling goes on in any case. Behind a pooler in session mode, listen all the same.",
)
@click.option(
    "--health",
    type=ADDRESS,
    metavar="[HOST:]PORT",
    help="Answer GET /livez and /readyz there; without HOST, to this machine only.",
)
@click.option("--drain", is_flag=True, show_default=False, help="Stop when nothing is left that will go on by itself.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    envvar="PGFLOW_LOG_LEVEL",
    help="What to log on stderr.",
)
@json_option
@database_options
def command(
    app: str | None,
    queues: tuple[str, ...],
    poll: timedelta,
    lease: timedelta,
    sweep: timedelta,
    shutdown_timeout: timedelta,
    listen: bool | None,
    health: tuple[str, int] | None,
    drain: bool,
    log_level: str,
    as_json: bool,
    dsn: str,
    schema: str,
) -> None:
    """Run the steps of workflows until told to stop.

    SIGTERM or Ctrl-C lets the steps that run come to their end, for --shutdown-timeout, and gives the others back;
    a second signal stops at once. Any number of workers, on any number of machines, share the work. With --json, it
    prints in the end what it has done.

    A DURATION is a number and a unit, or several: 500ms, 30s, 1m30s, 2h. Without a unit it is seconds.

    \b
    Examples:
      pgflow worker --app myapp.flows:app
      pgflow worker --app myapp.flows:app --queue default=10 --queue mail=2
    """  # fmt: skip
    limits = parse_queues(queues)
    fork_if_pid_1()
    pulse = HeartbeatProcess.fork()  # before the app is loaded
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=log_level.upper(), handlers=[handler])
    usual = gc.get_threshold()
    found = load_app(app, dsn, schema)
    _warn_of_password(dsn)
    with connect(found.dsn, pooler=found.pooler) as conn:
        migrate.check(conn, found.schema)
    found.register()
    worker = found.worker(
        limits,
        poll=poll,
        lease=lease,
        sweep=sweep,
        shutdown_timeout=shutdown_timeout,
        listen=listen,
        drain=drain,
        pulse=pulse,
    )
    found.close()
    _collect_seldom(usual)
    is_telling = _attach_log(log_level)
    code = ABANDONED
    try:
        with answering(health, {"/livez": worker.liveness_error, "/readyz": worker.readiness_error}):
            run(_run(worker))
    except PgflowError as error:
        if not worker.abandoned:
            raise
        code = report(error)
    finally:
        if is_telling:
            telemetry.detach_log_handler()
        if pulse is not None:
            pulse.end()
    if as_json:
        done = {"worker": worker.settler.worker, **asdict(worker.stats), "abandoned": worker.abandoned}
        click.echo(document(done))
    if worker.abandoned:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # a sync step that did not end still holds its thread


class OneLine(logging.Formatter):
    """One line for each record, a traceback included: what is logged may come from anybody, and forges no other."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, with what cannot be printed written out."""
        return printable(super().format(record))


def _collect_seldom(usual: tuple[int, int, int]) -> None:
    """Look for garbage in cycles less often, unless the app has said how often: it took a sixth of a quick step's time.

    What has been loaded until now stays for good, and is not looked at again.
    """
    if gc.get_threshold() == usual:
        gc.set_threshold(SELDOM, *usual[1:])
    gc.collect()
    gc.freeze()


def _warn_of_password(dsn: str) -> None:
    source = click.get_current_context().get_parameter_source("dsn")
    if source is ParameterSource.COMMANDLINE and "password" in parse(dsn):
        log.warning("everybody on this machine can see the password in --dsn: pass it in PGFLOW_DSN, or in a .pgpass")


def _attach_log(log_level: str) -> bool:
    """Let events be logged as far as their level is; returns whether any is, for those that are not cost nothing."""
    threshold = logging.getLevelNamesMapping()[log_level.upper()]
    levels = {
        **dict.fromkeys(telemetry.events(), logging.DEBUG),
        telemetry.WORKFLOW_STOP: logging.INFO,
        telemetry.RUNNER_RESCUE: logging.WARNING,
    }
    # Of these a worker writes a line in any case, also where no handler is attached.
    del levels[telemetry.WORKFLOW_EXCEPTION], levels[telemetry.RUNNER_INIT]
    wanted = [name for name, level in levels.items() if level >= threshold]
    if wanted:
        telemetry.attach_log_handler(level=levels, events=wanted)
    return bool(wanted)


async def _run(worker: Worker) -> None:
    loop = asyncio.get_running_loop()
    signals = 0
    tasks: list[asyncio.Task[None]] = []

    def stop(name: str) -> None:
        log.info("%s: finishing what runs; once more stops at once", name)
        worker.stop()

    def stop_at_once(name: str) -> None:
        log.warning("%s again: stopping at once", name)
        tasks.append(loop.create_task(_stop_at_once(worker)))

    def on_signal(number: int, frame: object) -> None:
        nonlocal signals
        signals += 1
        name = signal.Signals(number).name
        if signals == 1:
            loop.call_soon_threadsafe(stop, name)
        else:
            last = threading.Timer(GIVE_BACK_SECONDS * 1.5, os._exit, [KILLED])
            last.daemon = True
            last.start()
            loop.call_soon_threadsafe(stop_at_once, name)

    # Not the loop's own handlers: a step that keeps the loop from running would keep them from being heard.
    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        await worker.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


async def _stop_at_once(worker: Worker) -> None:
    try:
        async with asyncio.timeout(GIVE_BACK_SECONDS):
            await worker.give_back()
    finally:
        os._exit(KILLED)
