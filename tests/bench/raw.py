"""How far pgflow is from the limit of the database: `python -m tests.bench.raw`.

pgbench does the same row operations in the same tables, in batches: claim n jobs; for each of five steps insert n
results and move n jobs in place; finally delete the jobs and complete the instances. Without an engine, JSON, fencing
and Python, that is the limit. Alternating with it, real workers do the same work, and their share is printed.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import click

from pgflow.bench import flows, throughput
from pgflow.bench.environment import BenchEnvironment, BenchRun, Plan, sigterm_as_interrupt
from pgflow.bench.meter import Cost
from pgflow.bench.result import Range
from pgflow.cli.operations.bench_report import number
from pgflow.cli.operations.progress_bar import ProgressBar
from pgflow.database.connect import connect
from pgflow.embedded.installation import choose
from pgflow.errors import ConfigError, PgflowError
from pgflow.store import bench
from tests.bench.scale.stock import fill, tidy

__all__ = ["command", "pgbench", "script", "workers"]

CLAIM = """\
with taken as materialized (
    select j.id from pgflow.jobs j where j.state = 'ready' and j.queue = 'default'
    order by j.priority, j.run_at, j.id limit {batch} for no key update of j skip locked
),
claimed as (
    update pgflow.jobs j set state = 'running', worker = 1 + :client_id, attempt = j.attempt + 1
    where j.id = any (array(select t.id from taken t)) returning j.id, j.run
)
select array_agg(c.id)::text as ids, array_agg(c.run)::text as runs from claimed c \\gset
"""
MOVE = """\
with moved as (
    update pgflow.jobs j set step = 'step{next}', attempt = 1 where j.id = any ((:ids)::bigint[]) returning j.run
)
insert into pgflow.step_results (run, step, event, output, attempt, worker, started_at)
select m.run, 'step{this}', 'done', '{{"number": {this}}}', 1, 1 + :client_id, now() from moved m;
"""
END = """\
with ended as (
    delete from pgflow.jobs j where j.id = any ((:ids)::bigint[]) returning j.run
),
completed as (
    update pgflow.instances i set status = 'completed', revision = i.revision + 1, finished_at = now()
    where i.run = any ((:runs)::bigint[])
)
insert into pgflow.step_results (run, step, event, output, attempt, worker, started_at)
select e.run, 'step{this}', 'done', '{{"number": {this}}}', 1, 1 + :client_id, now() from ended e;
"""
RATE = re.compile(r"^tps = ([\d.]+)", re.MULTILINE)
HEAD = "| | clients | batch | steps/s | lowest to highest | of the limit | WAL bytes | commits | server ms |"


@dataclass(frozen=True, slots=True)
class Entrant:
    """pgbench with so many sessions and jobs in a batch, or pgflow with so many workers of this concurrency."""

    who: str
    clients: int
    batch: int


@dataclass(frozen=True, slots=True)
class Raw:
    """The result of one run: steps a second, and the cost of each."""

    rate: float
    cost: Cost


def script(batch: int, steps: int = flows.CHAIN) -> str:
    """Return pgbench's script: one batch of instances, from claim to completion."""
    moves = [MOVE.format(this=this, next=this + 1) for this in range(1, steps)]
    return "".join([CLAIM.format(batch=batch), *moves, END.format(this=steps)])


def pgbench(bench_run: BenchRun, clients: int, batch: int, count: int) -> Raw:
    """Let pgbench complete about `count` instances. Raises `ConfigError` when pgbench is not installed."""
    program = choose().bindir / "pgbench"
    if not program.is_file():
        raise ConfigError(f"there is no pgbench in {program.parent}", hint="Install PostgreSQL's contributed programs.")
    times = max(1, count // batch // clients)
    total = times * batch * clients
    with connect(bench_run.app.dsn, "migrate") as conn:
        fill(conn, "ready", total)
        tidy(conn)
    path = bench_run.folder / "script.sql"
    path.write_text(script(batch))
    line = [program, "-n", "-M", "prepared", "-f", path, "-c", clients, "-j", min(2, clients), "-t", times]
    bench_run.meter.begin()
    done = subprocess.run([*map(str, line), bench_run.app.dsn], capture_output=True, check=False, text=True)
    found = RATE.search(done.stdout)
    if done.returncode != 0 or found is None:
        raise PgflowError(f"pgbench failed: {done.stderr.strip()[-500:]}")
    cost = bench_run.meter.end(total * flows.CHAIN)
    completed = bench_run.query(bench.completed(bench_run.app.schema))
    if completed != total:
        raise PgflowError(f"of {total} instances pgbench has completed {completed}")
    return Raw(float(found[1]) * batch * flows.CHAIN, cost)


def workers(bench_run: BenchRun, plan: Plan, count: int) -> Raw:
    """Let workers do the same."""
    run = throughput.drain(flows.Chain, bench_run, plan, count, traced=flows.CHAIN, steps=flows.CHAIN)
    assert run.cost is not None
    return Raw(run.lines[1].values["value"], run.cost)


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.option("--clients", multiple=True, type=click.IntRange(1, 64), default=(1, 2, 4), help="pgbench's sessions.")
@click.option("--batch", "batches", multiple=True, type=click.IntRange(1, 5000), default=(100, 500), help="Its tokens.")
@click.option("--count", type=click.IntRange(1), default=20_000, help="Instances of five steps.")
@click.option("--repeat", type=click.IntRange(1), default=3, help="Runs of each, in turn.")
@click.option("--workers", "processes", type=click.IntRange(1, 64), default=2, help="pgflow's worker processes.")
@click.option("--concurrency", type=click.IntRange(1, 10_000), default=500, help="Steps that run at once in each.")
def command(
    clients: tuple[int, ...], batches: tuple[int, ...], count: int, repeat: int, processes: int, concurrency: int
) -> None:
    """Compare pgflow with a pgbench script that does the same row operations in the same tables."""
    entrants = [Entrant("pgbench", number_of, batch) for batch in batches for number_of in clients]
    ours = Entrant("pgflow", processes, concurrency)
    found: dict[Entrant, list[Raw]] = {entrant: [] for entrant in [*entrants, ours]}
    with sigterm_as_interrupt(), BenchEnvironment("", "pgflow") as environment:
        for entrant in [*found] * repeat:
            with environment.new_run(ProgressBar()) as bench_run:
                if entrant is ours:
                    raw = workers(bench_run, Plan(processes, concurrency), count)
                else:
                    raw = pgbench(bench_run, entrant.clients, entrant.batch, count)
            sys.stderr.write(f"{entrant.who}, {entrant.clients}, {entrant.batch}: {raw.rate:,.0f} steps/s\n")
            found[entrant].append(raw)
    rates = {entrant: Range.of([raw.rate for raw in raws]) for entrant, raws in found.items()}
    limit = max(rate.median for rate in rates.values())
    click.echo(f"{HEAD}\n|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    for entrant, raws in found.items():
        click.echo(_row(entrant, rates[entrant], limit, [raw.cost for raw in raws]))


def _row(entrant: Entrant, rate: Range, limit: float, costs: Sequence[Cost]) -> str:
    wal, commits = (median(getattr(cost, name) for cost in costs) for name in ("wal_bytes", "commits"))
    cpu = [cost.server_ms for cost in costs if cost.server_ms is not None]
    cells = (
        *(entrant.who, entrant.clients, entrant.batch, number(rate.median)),
        f"{number(rate.low)} to {number(rate.high)}",
        f"{rate.median / limit:.0%}",
        *(f"{wal:.0f}", f"{commits:.4f}", f"{median(cpu):.3f}" if cpu else "-"),
    )
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    command(prog_name="python -m tests.bench.raw")
