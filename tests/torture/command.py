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
from tests.torture.trial.run import Plan, Row, Verdict, hold, judge, read

__all__ = ["command", "main"]

SEEDS = 1_000_000


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100, "show_default": True})
@click.option("--minutes", type=click.FloatRange(0.1, 7 * 24 * 60), default=2.0, help="For how long harm is done.")
@click.option("--seed", type=click.IntRange(0), help="Throws the dice; a run says which seed it had.")
@click.option("--workers", type=click.IntRange(2, 16), default=4, help="Worker processes.")
@click.option("--rate", type=click.FloatRange(0.1, 100), default=6.0, help="Instances that are started a second.")
@click.option("--only", multiple=True, metavar="TEXT", help="Only harm whose name holds this; may be repeated.")
@click.option(
    "--replay",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Play the schedule of an earlier run again, from its file schedule.jsonl.",
)
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where all that happens is written down; a temporary folder, which is kept when the run is not green.",
)
@click.option(
    "--check",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Do nothing, but check once more what an earlier run has written into its folder.",
)
@json_option
@debug_option
def command(
    minutes: float,
    seed: int | None,
    workers: int,
    rate: float,
    only: tuple[str, ...],
    replay: Path | None,
    folder: Path | None,
    check: Path | None,
    as_json: bool,
) -> int:
    """Do everything to pgflow that may happen to it, and check that nothing is lost and nothing is done twice.

    Starts a throwaway PostgreSQL and worker processes, starts instances of every shape, and strikes: processes are
    killed and stopped, also just before and after each commit, sessions are ended, replies lost, the server crashed and
    replaced, and so on. When all is healed, each instance has to end in time. Then the whole history is checked: what
    callers were told, what steps did, and each change in the database. A fault that never came about makes a run
    invalid. The exit code is 1 when anything is broken, and 2 when the run is invalid.

    \b
    Examples:
      python -m tests.torture --minutes 30 --seed 7
      python -m tests.torture --minutes 1 --only "kill at"
      python -m tests.torture --replay /tmp/pgflow-torture-x/schedule.jsonl
    """  # fmt: skip
    logging.getLogger("psycopg").addHandler(logging.NullHandler())  # outages are met on purpose here
    place = check or folder or Path(tempfile.mkdtemp(prefix="pgflow-torture-"))
    if check is None:
        chosen = random.SystemRandom().randrange(SEEDS) if seed is None else seed
        place.mkdir(parents=True, exist_ok=True)
        print_notice(f"seed {chosen}; everything is written to {place}")
        verdict = judge(
            hold(Plan(place, 60 * minutes, chosen, workers, rate=rate, only=only, replay=replay), print_notice)
        )
    else:
        verdict = judge(read(check))
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
        "violations": [{"invariant": each.invariant, "said": each.said} for each in verdict.violations],
        "missing": list(verdict.missing),
        "counters": verdict.counters,
        "started": run.started,
        "seconds": round(run.seconds, 1),
        "drained": None if run.drained is None else round(run.drained, 1),
        "faults": [_row(row) for row in verdict.rows],
        "impossible": run.impossible,
    }


def _row(row: Row) -> dict[str, object]:
    return {
        "fault": row.harm,
        "times": row.came,
        "tried": row.tried,
        "instances": row.instances,
        "violations": row.violations,
    }


def _print(verdict: Verdict, folder: Path) -> None:
    run = verdict.recording
    rows: list[tuple[object, ...]] = [(row.harm, row.came, row.instances, row.violations) for row in verdict.rows]
    rows += [(name, "left out", None, None) for name in run.impossible]
    click.echo("\n" + table(["FAULT", "TIMES", "INSTANCES", "VIOLATIONS"], rows))
    click.echo("\n" + table(["SEEN", "TIMES"], list(verdict.counters.items())))
    for name, reason in run.impossible.items():
        click.echo(f"\nnot here: {name}: {reason}")
    for each in verdict.violations:
        click.echo(f"\n{each.invariant}: {each.said}")
    if run.drained is None:
        click.echo("\nNot everything came to its end after the last fault.")
    else:
        click.echo(f"\nEverything came to its end {run.drained:.1f} s after the last fault.")
    if verdict.missing:
        click.echo(f"Never seen, so this run proves nothing about it: {', '.join(verdict.missing)}")
    struck = sum(row.came for row in verdict.rows)
    click.echo(
        f"{run.started} instances, {struck} faults, {len(verdict.violations)} violations "
        f"in {run.seconds:.0f} s. Seed {run.seed}{'' if verdict.is_green else f'; all of it is in {folder}'}"
    )


def main() -> None:
    """Run the command and exit: 1 for violations, 2 for a run that proves nothing, otherwise as `pgflow` does."""
    options = GlobalOptions()
    try:
        code = command.main(prog_name="python -m tests.torture", standalone_mode=False, obj=options)
    except Exception as error:
        code = report(error, debug=options.debug)
    sys.exit(code or 0)
