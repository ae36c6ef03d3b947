"""Run the tests of scale on a throwaway server, print a table for each, and draw them."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click

from pgflow.bench import machine
from pgflow.bench.environment import BenchEnvironment, BenchRun, sigterm_as_interrupt
from pgflow.bench.machine import OtherLoad
from pgflow.cli.operations.bench_report import number
from pgflow.cli.operations.progress_bar import ProgressBar
from tests.bench.plot import Chart, lines
from tests.bench.scale import claims, horizon, waiting

__all__ = ["TESTS", "command"]

FREE_BYTES = 30 * 2**30  # for the largest test, with WAL
Measure = Callable[[BenchRun, Sequence[int], Callable[[str], None]], list[Chart]]


@dataclass(frozen=True, slots=True)
class Scale:
    """One test with its sizes, and a small version of it."""

    says: str
    measure: Measure
    sizes: tuple[int, ...]
    quick: tuple[int, ...]
    quickly: Measure | None = None

    def run(
        self, bench_run: BenchRun, report: Callable[[str], None], *, is_quick: bool, most: int | None
    ) -> list[Chart]:
        """Measure at sizes up to `most`."""
        measure = self.quickly or self.measure if is_quick else self.measure
        sizes = self.quick if is_quick else self.sizes
        if most is not None:
            sizes = tuple(dict.fromkeys(min(size, most) for size in sizes))
        return measure(bench_run, sizes, report)


TESTS: Mapping[str, Scale] = {
    "ready": Scale(
        "claim with up to 10 M ready jobs",
        claims.ready,
        (10_000, 100_000, 1_000_000, 10_000_000),
        (2_000, 20_000, 100_000),
    ),
    "scheduled": Scale(
        "claim with up to 3 M jobs scheduled for later",
        claims.scheduled,
        (0, 10_000, 100_000, 1_000_000, 3_000_000),
        (0, 10_000, 50_000),
    ),
    "horizon": Scale("claim while an old transaction keeps dead rows", horizon.horizon, (500_000,), (10_000,)),
    "planned": Scale("claim on a plan that was made while there were no results", horizon.planned, (20_000,), (5_000,)),
    "queues": Scale("claim with up to 1,000 queues", claims.queues, (1, 10, 100, 1000), (1, 10, 100)),
    "claimers": Scale(
        "up to 64 claimers side by side",
        partial(claims.claimers, seconds=3.0, stock=2_000_000),
        (1, 2, 4, 8, 16, 32, 64),
        (1, 4, 16),
        partial(claims.claimers, seconds=0.5, stock=100_000),
    ),
    "waiting": Scale(
        "a worker while up to 1 M instances wait",
        partial(waiting.waiting, seconds=15.0),
        (0, 10_000, 100_000, 1_000_000),
        (0, 20_000),
        partial(waiting.waiting, seconds=3.0),
    ),
}
LISTED = "\n".join(f"  {name:10} {test.says}" for name, test in TESTS.items())


@click.command(
    context_settings={"show_default": True, "help_option_names": ["-h", "--help"]},
    help=f"See how each cost grows as the work grows, on a throwaway server.\n\n\b\nTests:\n{LISTED}",
)
@click.argument("names", nargs=-1, metavar="[TEST]...", type=click.Choice(list(TESTS)))
@click.option("--quick", is_flag=True, help="A small version of each, in about two minutes.")
@click.option("--most", type=click.IntRange(1000), help="The largest size, for a smaller disk or less time.")
@click.option("--svg", type=click.Path(path_type=Path), help="Draw the growth of each cost here.")
def command(names: tuple[str, ...], quick: bool, most: int | None, svg: Path | None) -> None:
    """Run the named tests, by default all."""
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if not quick and most is None and free < FREE_BYTES:
        raise click.ClickException(
            f"{FREE_BYTES / 2**30:.0f} GiB of disk are needed, {free / 2**30:.0f} are free: --quick or --most"
        )
    charts: list[Chart] = []
    with sigterm_as_interrupt(), BenchEnvironment("", "pgflow") as environment:
        for name in names or TESTS:
            began, other_load = time.monotonic(), OtherLoad(environment.server)
            with environment.new_run(ProgressBar()) as bench_run:
                found = TESTS[name].run(bench_run, partial(_print, name), is_quick=quick, most=most)
            _print(name, f"took {time.monotonic() - began:.0f} s, others used {other_load.share():.0%} of the machine")
            charts += found
            click.echo("\n\n".join(table(chart) for chart in found) + "\n")
        here = machine.describe()
        said = f"{here['processor']}, {here['cores']} cores, PostgreSQL {environment.settings['server_version']}"
    if svg is not None:
        svg.write_text(lines("How each cost grows", said, charts) + "\n")


def table(chart: Chart) -> str:
    """Return the figures of a chart as a Markdown table."""
    head = [f"{chart.title}: {chart.across}", *(f"{each.label}, {chart.unit}" for each in chart.series)]
    rows = [[f"{x:,.0f}", *(number(dict(each.points)[x]) for each in chart.series)] for x, _ in chart.series[0].points]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["--:"] * len(head), *rows))


def _print(name: str, text: str) -> None:
    sys.stderr.write(f"{name}: {text}\n")
    sys.stderr.flush()
