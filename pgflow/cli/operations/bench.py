"""`pgflow bench`: measure throughput, latency and the cost of a step, and print the results."""

import click

from pgflow.bench import machine
from pgflow.bench.environment import BenchEnvironment, Plan, sigterm_as_interrupt
from pgflow.bench.scenarios import SCENARIOS, measure
from pgflow.cli.operations import bench_report
from pgflow.cli.operations.progress_bar import ProgressBar
from pgflow.cli.options import debug_option, json_option
from pgflow.cli.output import print_document, print_notice

__all__ = ["command"]

NOISY = 0.1  # warn when other processes use more than this share of the machine
SCENARIO_LIST = "\n".join(f"  {name:15} {each.title}" for name, each in SCENARIOS.items())


@click.command(
    "bench",
    help=f"""Measure how fast pgflow is here: throughput, latency, and what a step costs the database.

Without --dsn it starts a throwaway PostgreSQL, with fsync and synchronous_commit on. With --dsn it runs on your server,
in a schema that it creates and drops, and puts that server under full load.

\b
Scenarios (default: all of them):
{SCENARIO_LIST}

\b
Examples:
  pgflow bench
  pgflow bench chain fan --workers 4 --concurrency 200 --repeat 5
  pgflow bench --dsn postgresql://ann@db.example/scratch --json
""",
)
@click.argument("names", metavar="[SCENARIO]...", nargs=-1, type=click.Choice(list(SCENARIOS)))
@click.option("--workers", type=click.IntRange(1, 64), default=2, help="Worker processes.")
@click.option("--concurrency", type=click.IntRange(1, 10_000), default=500, help="Concurrency of each worker.")
@click.option("--batch", type=click.IntRange(1, 50_000), default=1000, help="Instances that one call starts.")
@click.option("--count", type=click.IntRange(1), show_default="the scenario's own", help="Instances in each run.")
@click.option("--seconds", type=click.FloatRange(0.1, 3600), help="About how long each run takes.")
@click.option("--repeat", type=click.IntRange(1, 100), default=3, help="Runs of each scenario.")
@click.option("--dsn", default="", show_default="a throwaway server", help="The database to measure on.")
@click.option("--schema", default="pgflow_bench", help="The schema to create there, and to drop.")
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
    """Measure the scenarios and print the results."""
    if count is not None and seconds is not None:
        raise click.UsageError("Use --count or --seconds, not both.")
    plan = Plan(workers, concurrency, batch, count, seconds)
    here = machine.describe()
    progress = ProgressBar()
    with sigterm_as_interrupt(), BenchEnvironment(dsn, schema) as environment:
        if not as_json:
            print_notice(bench_report.about(environment, plan, here, repeat) + "\n")
        try:
            summaries = measure(environment, plan, progress, names or tuple(SCENARIOS), repeat)
        finally:
            progress.end()
    if as_json:
        results = {
            "machine": here,
            "server": {
                "settings": environment.settings,
                "throwaway": environment.is_throwaway,
                "round_trip_ms": 1000 * environment.round_trip_seconds,
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
        print_document(results)
    else:
        click.echo(
            "\n\n".join(part for part in (bench_report.figures(summaries), bench_report.costs(summaries)) if part)
        )
        if max(each.others.high for each in summaries) > NOISY:
            print_notice(f"\n{bench_report.noise(summaries)}")
