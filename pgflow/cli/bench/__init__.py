"""`pgflow bench`: measure throughput, latency and what a step costs the database, here and now.

Its decisions:

*What is measured is what users have.* Instances are started by the client, steps are run by `pgflow worker`
processes, nothing is switched off. The steps do nothing (flows.py), so what is left is the engine's share.

*The database has no part in the measuring.* Steps make marks in files (marks.py); times are the machine's monotonic
clock, from the call in one process to the first line of a step in another.

*Each run begins with empty tables,* in a schema that is made for it and dropped after it (scratch_schema.py), on a
throwaway server with durable settings or on the one that is named. What was there before is not touched.

*Several runs, in turn.* All scenarios run once, then all again: what the machine does beside spreads over them.
Medians are told, with the lowest and the highest.

*A cost is what the server's own counters say,* read before the first worker starts and after the last session has
ended (meter.py): so a worker's start and stop are in it, and a few thousand steps make them small.
"""

import click

from pgflow.cli.bench import machine, report
from pgflow.cli.bench.ground import BenchEnvironment, Plan, orderly
from pgflow.cli.bench.progress import Progress
from pgflow.cli.bench.result import Run, Summary, summarize
from pgflow.cli.bench.scenarios import SCENARIOS
from pgflow.cli.options import debug_option, json_option
from pgflow.cli.output import document, print_notice

__all__ = ["command"]

NOISY = 0.1  # the share of the machine that others may use without a word
LISTED = "\n".join(f"  {name:15} {each.says}" for name, each in SCENARIOS.items())


@click.command(
    "bench",
    help=f"""Measure how fast pgflow is here: throughput, latency, and what a step costs the database.

Without --dsn it starts a throwaway PostgreSQL, with fsync and synchronous_commit on. With it, it works on your server,
in a schema of its own that it makes and drops; do not expect that server to have much left for others meanwhile.

\b
Scenarios (all, if none is named):
{LISTED}

\b
Examples:
  pgflow bench
  pgflow bench chain fan --workers 4 --concurrency 200 --repeat 5
  pgflow bench --dsn postgresql://ann@db.example/scratch --json
""",
)
@click.argument("names", metavar="[SCENARIO]...", nargs=-1, type=click.Choice(list(SCENARIOS)))
@click.option("--workers", type=click.IntRange(1, 64), default=2, help="Worker processes.")
@click.option("--concurrency", type=click.IntRange(1, 10_000), default=500, help="Steps that run at once in each.")
@click.option("--batch", type=click.IntRange(1, 50_000), default=1000, help="Instances that one call starts.")
@click.option("--count", type=click.IntRange(1), show_default="what suits the scenario", help="Instances in each run.")
@click.option("--seconds", type=click.FloatRange(0.1, 3600), help="How long each run is to take, about.")
@click.option("--repeat", type=click.IntRange(1, 100), default=3, help="Runs of each scenario.")
@click.option("--dsn", default="", show_default="a throwaway server", help="The database to measure on.")
@click.option("--schema", default="pgflow_bench", help="The schema to make there, and to drop.")
@json_option
@debug_option
def command(
    names: tuple[str, ...],
    workers: int,
    concurrency: int,
    batch: int,
    count: int | None,
    seconds: float | None,
    repeat: int,
    dsn: str,
    schema: str,
    as_json: bool,
) -> None:
    """Measure what is asked for, and print it."""
    if count is not None and seconds is not None:
        raise click.UsageError("--count and --seconds exclude one another.")
    plan = Plan(workers, concurrency, batch, count, seconds)
    here = machine.describe()
    progress = Progress()
    with orderly(), BenchEnvironment(dsn, schema) as ground:
        if not as_json:
            print_notice(report.about(ground, plan, here, repeat) + "\n")
        summaries = _measure(ground, plan, progress, names or tuple(SCENARIOS), repeat)
    if as_json:
        told = {
            "machine": here,
            "server": {
                "settings": ground.settings,
                "throwaway": ground.is_ours,
                "round_trip_ms": 1000 * ground.trip_seconds,
            },
            "plan": {
                "workers": workers,
                "concurrency": concurrency,
                "batch": batch,
                "count": count,
                "seconds": seconds,
            },
            "results": [each.record() for each in summaries],
        }
        click.echo(document(told))
    else:
        click.echo("\n\n".join(part for part in (report.figures(summaries), report.costs(summaries)) if part))
        if max(each.others.high for each in summaries) > NOISY:
            print_notice(f"\n{report.noise(summaries)}")


def _measure(
    ground: BenchEnvironment, plan: Plan, progress: Progress, names: tuple[str, ...], repeat: int
) -> list[Summary]:
    """Run all scenarios in turn, as often as wanted."""
    runs: dict[str, list[Run]] = {name: [] for name in dict.fromkeys(names)}
    try:
        for number in range(1, repeat + 1):
            for name, so_far in runs.items():
                label = f"{name}, {number} of {repeat}"
                so_far.append(SCENARIOS[name].run(ground, plan, progress, label))
    finally:
        progress.end()
    return [summarize(name, found) for name, found in runs.items()]
