"""Format benchmark results for people: the environment, the measurements and the costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pgflow.bench.environment import BenchEnvironment, Plan
from pgflow.bench.result import Range, Summary
from pgflow.cli.output import table

__all__ = ["about", "costs", "figures", "noise", "number"]

# The columns of the cost table: title, name, decimals.
COSTS = (
    ("WAL BYTES", "wal_bytes", 0),
    ("COMMITS", "commits", 4),
    ("ROUND TRIPS", "round_trips", 4),
    ("INSERTED", "inserted", 2),
    ("UPDATED", "updated", 2),
    ("IN PLACE", "in_place", 2),
    ("DELETED", "deleted", 2),
    ("DEAD", "dead", 2),
    ("SERVER MS", "server_ms", 3),
    ("WORKER MS", "worker_ms", 3),
)
FOOTNOTE = """\
WAL BYTES and SERVER MS (of CPU) are the whole server's, COMMITS the database's, rows those of pgflow's tables. IN PLACE
is the share of HOT updates, which need no new index entry, DEAD the row versions left for vacuum. ROUND TRIPS
are counted by the workers, without heartbeats. WORKER MS (of CPU) includes their start. A wait is a step, too."""


def about(environment: BenchEnvironment, plan: Plan, machine: dict[str, Any], repeat: int) -> str:
    """Return the head: machine, versions, server, settings, plan."""
    settings = ", ".join(f"{name} {value}" for name, value in environment.settings.items() if name != "server_version")
    versions = ("pgflow-engine", "python", "psycopg", "pydantic")
    lines = {
        "machine": (
            f"{machine['processor']}, {machine['cores']} cores, {machine['memory_bytes'] / 2**30:.0f} GiB, "
            f"{machine['system']}"
        ),
        "versions": ", ".join(
            [*(f"{name} {machine[name]}" for name in versions), f"PostgreSQL {environment.settings['server_version']}"]
        ),
        "server": (
            f"{'throwaway' if environment.is_throwaway else 'given'}; its CPU is "
            f"{'measured' if environment.server else 'not visible from here'}; a round trip takes "
            f"{1000 * environment.round_trip_seconds:.2f} ms"
        ),
        "settings": settings,
        "plan": (
            f"{plan.workers} worker processes with a concurrency of {plan.concurrency}, {plan.batch} instances a "
            f"call; median of {repeat} runs (lowest to highest)"
        ),
    }
    return "\n".join(f"{name:9} {text}" for name, text in lines.items())


def figures(summaries: Sequence[Summary]) -> str:
    """Return the table of measurements."""
    rows = [row for summary in summaries for row in _rows(summary)]
    return table(["SCENARIO", "MEASURED", "UNIT", "RESULT"], rows)


def _rows(summary: Summary) -> Iterator[list[str]]:
    for name, (unit, values) in summary.lines.items():
        values_text = [f"{key} {_format(each)}" if len(values) > 1 else _format(each) for key, each in values.items()]
        yield [summary.scenario, name, unit, "  ".join(values_text)]


def _format(each: Range) -> str:
    if each.low == each.high:
        return number(each.median)
    return f"{number(each.median)} ({number(each.low)} to {number(each.high)})"


def costs(summaries: Sequence[Summary]) -> str:
    """Return the table of median costs per step, with an explanation of its columns."""
    rows = [
        [summary.scenario, *(_cost(summary.cost[name], decimals) for _, name, decimals in COSTS)]
        for summary in summaries
        if summary.cost
    ]
    return f"{table(['PER STEP', *(title for title, _, _ in COSTS)], rows)}\n\n{FOOTNOTE}" if rows else ""


def _cost(each: Range | None, decimals: int) -> str | None:
    return None if each is None else f"{each.median:.{decimals}f}"


def noise(summaries: Sequence[Summary]) -> str:
    """Return a warning about other load on the machine."""
    worst = max(summaries, key=lambda each: each.others.high)
    return (
        f"Other processes used up to {worst.others.high:.0%} of this machine (during {worst.scenario}): "
        "measure again when it is idle."
    )


def number(value: float) -> str:
    """Return a number with its significant digits."""
    size = abs(value)
    if size >= 1000:
        return f"{round(value, 3 - len(str(int(size)))):,.0f}"
    return f"{value:.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"
