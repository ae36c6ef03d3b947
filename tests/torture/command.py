"""The command line of `python -m tests.torture`."""

import logging
import random
import shutil
import sys
import tempfile
from pathlib import Path

import click

from pgflow.cli.error_reporting import GlobalOptions, report
from pgflow.cli.options import debug_option, json_option
from pgflow.cli.output import document, print_notice, table
from tests.torture.trial.run import SLACK_SECONDS, FaultRow, Plan, Verdict, judge, read_recording, run_trial

__all__ = ["command", "main"]

SEEDS = 1_000_000


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True})
@click.option("--minutes", type=click.FloatRange(0.1, 7 * 24 * 60), default=2.0, help="How long faults are injected.")
@click.option("--seed", type=click.IntRange(0), help="The random seed; a run prints the one that it used.")
@click.option("--workers", type=click.IntRange(2, 16), default=4, help="Worker processes.")
@click.option("--rate", type=click.FloatRange(0.1, 100), default=6.0, help="Instances started a second.")
@click.option(
    "--slack",
    type=click.FloatRange(0, 300),
    default=SLACK_SECONDS,
    help="Seconds added to the limits for rescues and timers, for a busy machine.",
)
@click.option("--only", multiple=True, metavar="TEXT", help="Only faults whose name contains this; may be repeated.")
@click.option(
    "--replay",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Replay the schedule of an earlier run, from its file schedule.jsonl.",
)
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where everything is recorded; by default a temporary folder, which is kept when the run is not green.",
)
@click.option(
    "--check",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Only check the folder of an earlier run again.",
)
@json_option
@debug_option
def command(
    minutes: float,
    seed: int | None,
    workers: int,
    rate: float,
    slack: float,
    only: tuple[str, ...],
    replay: Path | None,
    folder: Path | None,
    check: Path | None,
    as_json: bool,
) -> int:
    """Inject every fault that this machine supports, and check that nothing is lost and nothing is done twice.

    Starts a throwaway PostgreSQL, worker processes and callers that start instances of every shape. Kills and stops
    processes, also just before and after each commit, ends sessions, loses replies, crashes the server, fails it over,
    and so on. After the last fault each instance must end in time. Then the whole history is checked: the answers to
    callers, the runs of the steps, and each change in the database. A fault that never happened makes the run invalid.
    The exit code is 1 for violations, and 2 for an invalid run.

    \b
    Examples:
      python -m tests.torture --minutes 30 --seed 7
      python -m tests.torture --minutes 1 --only "kill at"
      python -m tests.torture --replay /tmp/pgflow-torture-x/schedule.jsonl
    """  # fmt: skip
    logging.getLogger("psycopg").addHandler(logging.NullHandler())  # outages are intended here
    place = check or folder or Path(tempfile.mkdtemp(prefix="pgflow-torture-"))
    if check is None:
        chosen = random.SystemRandom().randrange(SEEDS) if seed is None else seed
        place.mkdir(parents=True, exist_ok=True)
        print_notice(f"seed {chosen}; everything is recorded in {place}")
        plan = Plan(place, 60 * minutes, chosen, workers, rate=rate, slack=slack, only=only, replay=replay)
        verdict = judge(run_trial(plan, print_notice))
    else:
        verdict = judge(read_recording(check))
    if as_json:
        click.echo(document({"seed": verdict.recording.seed, "folder": str(place), **_record(verdict)}))
    else:
        _print(verdict, place)
    if verdict.is_green and folder is None and check is None:
        shutil.rmtree(place)
    if verdict.violations or verdict.recording.drained is None:
        return 1
    return 2 if verdict.missing else 0


def _record(verdict: Verdict) -> dict[str, object]:
    run = verdict.recording
    return {
        "green": verdict.is_green,
        "violations": [{"invariant": each.invariant, "message": each.message} for each in verdict.violations],
        "missing": list(verdict.missing),
        "counters": verdict.counters,
        "started": run.started,
        "seconds": round(run.seconds, 1),
        "drained": None if run.drained is None else round(run.drained, 1),
        "faults": [_row(row) for row in verdict.rows],
        "impossible": run.impossible,
    }


def _row(row: FaultRow) -> dict[str, object]:
    return {
        "fault": row.fault,
        "times": row.happened,
        "tried": row.tried,
        "instances": row.instances,
        "violations": row.violations,
    }


def _print(verdict: Verdict, folder: Path) -> None:
    run = verdict.recording
    rows: list[tuple[object, ...]] = [(row.fault, row.happened, row.instances, row.violations) for row in verdict.rows]
    rows += [(name, "unsupported", None, None) for name in run.impossible]
    click.echo("\n" + table(["FAULT", "TIMES", "INSTANCES", "VIOLATIONS"], rows))
    click.echo("\n" + table(["SEEN", "TIMES"], list(verdict.counters.items())))
    for name, reason in run.impossible.items():
        click.echo(f"\nunsupported: {name}: {reason}")
    for each in verdict.violations:
        click.echo(f"\n{each.invariant}: {each.message}")
    if run.drained is None:
        click.echo("\nNot all instances ended after the last fault.")
    else:
        click.echo(f"\nAll instances had ended {run.drained:.1f} s after the last fault.")
    if verdict.missing:
        click.echo(f"Never happened, so the run is invalid: {', '.join(verdict.missing)}")
    injected = sum(row.happened for row in verdict.rows)
    click.echo(
        f"{run.started} instances, {injected} faults, {len(verdict.violations)} violations "
        f"in {run.seconds:.0f} s. Seed {run.seed}{'' if verdict.is_green else f'; the recording is in {folder}'}"
    )


def main() -> None:
    """Run the command and exit: 1 for violations, 2 for a run that proves nothing, otherwise as `pgflow` does."""
    options = GlobalOptions()
    try:
        code = command.main(prog_name="python -m tests.torture", standalone_mode=False, obj=options)
    except Exception as error:
        code = report(error, debug=options.debug)
    sys.exit(code or 0)
