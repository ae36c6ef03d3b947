"""`pgflow worker`: run a worker until it receives SIGTERM or SIGINT."""

import asyncio
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import click
from click.core import ParameterSource

from pgflow import telemetry
from pgflow.cli.app_loader import load_app
from pgflow.cli.error_reporting import GlobalOptions, report
from pgflow.cli.operations.health import ADDRESS, serve_probes
from pgflow.cli.operations.init_process import fork_if_pid_1
from pgflow.cli.operations.worker_check import check_worker
from pgflow.cli.operations.worker_logging import attach_log, configure_logging
from pgflow.cli.operations.worker_processes import EXIT_ABANDONED, EXIT_KILLED, Link, Supervisor
from pgflow.cli.operations.worker_recycling import Recycling
from pgflow.cli.operations.worker_reload import Reloader
from pgflow.cli.options import app_option, database_options, json_option
from pgflow.cli.output import print_document
from pgflow.cli.parameters import Duration
from pgflow.config import parse_queues
from pgflow.database.connect import connect
from pgflow.database.dsn import parse
from pgflow.errors import PgflowError
from pgflow.logs import Logger
from pgflow.migrations import migrate
from pgflow.worker import Worker
from pgflow.worker.lease.heartbeat_process import HeartbeatProcess
from pgflow.worker.loop import run

__all__ = ["command"]

log = Logger("pgflow.worker")

RELEASE_TIMEOUT = 1.0  # seconds for releasing claimed jobs after a second signal
ARGUMENTS = "pgflow.worker.arguments"  # in the context: the arguments of the command
GC_THRESHOLD = 10_000  # net allocations between collections of the youngest generation


class WorkerCommand(click.Command):
    """Keeps its arguments as they were given, for the processes that run the same command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse them."""
        ctx.meta[ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)


@click.command(cls=WorkerCommand)
@app_option
@click.option(
    "-q",
    "--queue",
    "queues",
    multiple=True,
    default=["default=10"],
    metavar="NAME=LIMIT",
    help="Queue to work on, and its concurrency: how many of its steps may run at once. Repeatable. "
    "A transactional step uses a connection of its own while it runs.",
)
@click.option(
    "--processes",
    type=click.IntRange(1, 1000),
    default=1,
    metavar="N",
    help="How many worker processes to run. Each has the queues and limits given; one that dies is restarted.",
)
@click.option(
    "--cpu-processes",
    type=click.IntRange(1, 1000),
    show_default="one per processor",
    metavar="N",
    help="How many cpu=True steps run at once in each worker, each in a process of its own.",
)
@click.option(
    "--poll",
    type=Duration(timedelta(milliseconds=10), timedelta(hours=1), bare=True),
    default="1s",
    metavar="DURATION",
    help="Polling interval when no notification arrives.",
)
@click.option(
    "--lease",
    type=Duration(timedelta(milliseconds=500), timedelta(hours=1), bare=True),
    default="30s",
    metavar="DURATION",
    help="How long claimed jobs stay with this worker without a heartbeat.",
)
@click.option(
    "--sweep",
    type=Duration(timedelta(milliseconds=100), timedelta(hours=1), bare=True),
    default="5s",
    metavar="DURATION",
    help="How often to rescue jobs of dead workers.",
)
@click.option(
    "--shutdown-timeout",
    type=Duration(timedelta(0), timedelta(days=1), bare=True),
    default="25s",
    metavar="DURATION",
    help="Grace period for running steps after SIGTERM; then their jobs are released.",
)
@click.option(
    "--listen/--no-listen",
    default=None,
    show_default="listen, except with --pooler",
    help="Wake up on NOTIFY, in addition to polling. Use --listen with a pooler in session mode.",
)
@click.option(
    "--health",
    type=ADDRESS,
    metavar="[HOST:]PORT",
    help="Serve GET /livez and /readyz on this address; without HOST, on localhost only.",
)
@click.option(
    "--no-retention",
    is_flag=True,
    show_default=False,
    help="Delete no instances that ended long ago, whatever the app and its workflows declare.",
)
@click.option(
    "--drain", is_flag=True, show_default=False, help="Exit once no job is left that can continue without a signal."
)
@click.option(
    "--max-jobs",
    type=click.IntRange(1),
    metavar="N",
    help="End gracefully after N steps and tasks; with --processes, a new process follows.",
)
@click.option(
    "--max-lifetime",
    type=Duration(timedelta(seconds=1), timedelta(days=365), bare=True),
    metavar="DURATION",
    help="End gracefully after 90 to 100 % of this time; with --processes, a new process follows.",
)
@click.option(
    "--reload", "reloads", is_flag=True, show_default=False, help="Start again when a source file changes: to develop."
)
@click.option(
    "--reload-dir",
    "reload_folders",
    type=click.Path(exists=True, file_okay=False),
    multiple=True,
    metavar="FOLDER",
    show_default="the current directory",
    help="Folder whose files --reload watches. Repeatable.",
)
@click.option(
    "--check",
    "checks",
    is_flag=True,
    show_default=False,
    help="Import the app, connect and check the schema; then exit without running anything.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    envvar="PGFLOW_LOG_LEVEL",
    help="Minimum level of log messages on stderr.",
)
@json_option
@database_options
def command(
    app: str | None,
    queues: tuple[str, ...],
    processes: int,
    cpu_processes: int | None,
    poll: timedelta,
    lease: timedelta,
    sweep: timedelta,
    shutdown_timeout: timedelta,
    listen: bool | None,
    health: tuple[str, int] | None,
    no_retention: bool,
    drain: bool,
    max_jobs: int | None,
    max_lifetime: timedelta | None,
    reloads: bool,
    reload_folders: tuple[str, ...],
    checks: bool,
    log_level: str,
    as_json: bool,
    dsn: str,
    schema: str,
) -> None:
    """Run a worker: claim jobs from queues and run their steps.

    Any number of workers, on any number of machines, share the work. SIGTERM or Ctrl-C starts a graceful shutdown: the
    worker claims no more jobs, gives running steps --shutdown-timeout to finish, and releases the rest. A second signal
    stops it immediately. With --json, it prints its counters on exit.

    A DURATION is a number with a unit, or several: 500ms, 30s, 1m30s, 2h. Without a unit it is seconds.

    \b
    Examples:
      pgflow worker --app myapp.flows:app
      pgflow worker --app myapp.flows:app --queue default=10 --queue mail=2
      pgflow worker --app myapp.flows:app --processes 4
      pgflow worker --app myapp.flows:app --reload
      pgflow worker --app myapp.flows:app --check

    Other commands of this group: pgflow worker list
    """  # fmt: skip
    limits = parse_queues(queues)
    _check_combination(reloads, reload_folders, processes, drain)
    if checks:
        check_worker(app, dsn, schema, limits, as_json=as_json)
        return
    link = Link.inherited()
    if link is None:
        fork_if_pid_1()
        if reloads or processes > 1:
            configure_logging(log_level)
            context = click.get_current_context()
            debug = ["--debug"] if context.ensure_object(GlobalOptions).debug else []
            arguments = [*debug, "worker", *context.meta[ARGUMENTS]]
            if reloads:
                folders = [Path(each) for each in reload_folders] or [Path.cwd()]
                sys.exit(Reloader(arguments, folders, shutdown_timeout).run(health))
            recycles = max_jobs is not None or max_lifetime is not None
            supervisor = Supervisor(
                arguments, processes, shutdown_timeout=shutdown_timeout, drain=drain, recycles=recycles
            )
            sys.exit(supervisor.run(health))
    heartbeat = HeartbeatProcess.fork()  # before the app is imported, while this process is small
    configure_logging(log_level, link)
    default_threshold = gc.get_threshold()
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
        heartbeat_process=heartbeat,
        cpu_app=app,
        cpu_processes=cpu_processes,
        retention=None if no_retention else found.retention,
    )
    found.close()
    _tune_garbage_collector(default_threshold)
    is_logging = attach_log(log_level)
    code = EXIT_ABANDONED
    try:
        with serve_probes(
            None if link else health, {"/livez": worker.liveness_error, "/readyz": worker.readiness_error}
        ):
            run(_run(worker, link, Recycling(max_jobs, max_lifetime)))
    except PgflowError as error:
        if not worker.abandoned:
            raise
        code = report(error)
    finally:
        if is_logging:
            telemetry.detach_log_handler()
        if heartbeat is not None:
            heartbeat.end()
    if as_json:
        process = {} if link is None else {"process": link.number}
        counters = {**process, "worker": worker.settler.worker, **asdict(worker.stats), "abandoned": worker.abandoned}
        print_document(counters)
    if worker.abandoned:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # the abandoned sync step still occupies a thread, which a normal exit would wait for


def _check_combination(reloads: bool, folders: tuple[str, ...], processes: int, drain: bool) -> None:
    if reloads and (processes > 1 or drain):
        raise click.UsageError(f"--reload and {'--processes' if processes > 1 else '--drain'} are mutually exclusive.")
    if folders and not reloads:
        raise click.UsageError("--reload-dir requires --reload.")


def _tune_garbage_collector(default_threshold: tuple[int, int, int]) -> None:
    """Collect less often, unless the app has set a threshold itself: collections took a sixth of a quick step's time.

    The objects loaded so far live as long as the process, so they are frozen: excluded from collections.
    """
    if gc.get_threshold() == default_threshold:
        gc.set_threshold(GC_THRESHOLD, *default_threshold[1:])
    gc.collect()
    gc.freeze()


def _warn_of_password(dsn: str) -> None:
    source = click.get_current_context().get_parameter_source("dsn")
    if source is ParameterSource.COMMANDLINE and "password" in parse(dsn):
        log.warning(
            "the password in --dsn is visible to all users of this machine: use PGFLOW_DSN or a .pgpass file instead"
        )


async def _run(worker: Worker, link: Link | None, recycling: Recycling) -> None:
    loop = asyncio.get_running_loop()
    watcher = loop.create_task(recycling.watch(worker))
    signals = 0
    tasks: list[asyncio.Task[None]] = []

    def stop(name: str) -> None:
        log.info("%s: shutting down gracefully; send it again to stop immediately", name)
        worker.stop()

    def stop_immediately(name: str) -> None:
        log.warning("%s: stopping immediately", name)
        tasks.append(loop.create_task(_stop_immediately(worker)))

    def kill(name: str) -> None:
        last = threading.Timer(RELEASE_TIMEOUT * 1.5, os._exit, [EXIT_KILLED])
        last.daemon = True
        last.start()
        loop.call_soon_threadsafe(stop_immediately, name)

    def on_signal(number: int, frame: object) -> None:
        nonlocal signals
        signals += 1
        name = signal.Signals(number).name
        if signals == 1:
            loop.call_soon_threadsafe(stop, name)
        else:
            kill(name)

    # Not loop.add_signal_handler: a step that blocks the event loop would delay its handlers.
    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    if link is not None:
        link.start(worker, stop=lambda name: _call_in(loop, stop, name), kill=kill)
    try:
        await worker.run()
    finally:
        watcher.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


def _call_in(loop: asyncio.AbstractEventLoop, do: Callable[[str], None], name: str) -> None:
    with suppress(RuntimeError):  # the loop is closed: the worker has ended
        loop.call_soon_threadsafe(do, name)


async def _stop_immediately(worker: Worker) -> None:
    try:
        async with asyncio.timeout(RELEASE_TIMEOUT):
            await worker.give_back()
    finally:
        os._exit(EXIT_KILLED)
