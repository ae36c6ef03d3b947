"""Format the comparison: a Markdown table with every ratio, and a plot."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from pgflow.bench.result import Range
from pgflow.cli.operations.bench_report import number
from tests.bench.compare.contests import CONTESTS
from tests.bench.compare.outcome import Results
from tests.bench.plot import Bar, Panel, bars

__all__ = ["markdown", "picture"]

# Further figures of a contest that are reported, by the name of the main figure.
MORE = (("p99", "p99 {}"), ("seen_p50", "its caller sees the result after {}"))
COSTS = ("wal", "commits", "server_ms")


def markdown(results: Results) -> str:
    """Return the machine, a short table of the best configurations, the full table, the cost of a job, and failures."""
    parts = [_about(results), "\n".join(_short(results)), "\n".join(_table(results))]
    if costs := list(_costs(results)):
        parts.append(
            "\n".join(
                ["| drain, per job or instance | WAL bytes | commits | server CPU ms |", "|---|--:|--:|--:|", *costs]
            )
        )
    if results.failures:
        parts.append("\n".join(["Not measured:", "", *(f"- {failure}" for failure in results.failures)]))
    return "\n\n".join(parts)


def _about(results: Results) -> str:
    machine = results.machine
    gigabytes = machine["memory_bytes"] / 2**30
    settings = ", ".join(f"{name} {value}" for name, value in results.settings.items() if name != "server_version")
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    others = [each.others for each in results.outcomes] or [0.0]
    return (
        f"{machine['processor']}, {machine['cores']} cores, {gigabytes:.0f} GiB, {machine['system']}; "
        f"Python {machine['python']}; PostgreSQL {results.settings['server_version']} on the same machine "
        f"({settings}). {versions}. Medians of {results.runs} runs, in turn; other processes used "
        f"{median(others):.0%} of the machine during a run, {max(others):.0%} at most."
    )


def _short(results: Results) -> Iterator[str]:
    """Return a row for each contest and a column for each peer: the median, the range and the ratio."""
    names = list(results.versions)
    yield f"| each at its best | {' | '.join(names)} |"
    yield f"|---|{'--:|' * len(names)}"
    for contest, kind in CONTESTS.items():
        cells = [_cell(results, contest, name) for name in names]
        if results.entrants(contest):
            yield f"| {kind.title}, {kind.unit}{'' if kind.is_rate else ' (p50)'} | {' | '.join(cells)} |"


def _cell(results: Results, contest: str, peer: str) -> str:
    found = results.range(contest, peer, "best", CONTESTS[contest].figure)
    if found is None:
        return ""
    spread = max(found.high - found.median, found.median - found.low) / found.median
    ratio = _ratio(results, contest, peer, "best")
    return f"{number(found.median)} ±{spread:.0%}{f', **{ratio}**' if ratio else ''}"


def _table(results: Results) -> Iterator[str]:
    yield "| | configuration | result | lowest to highest | pgflow is |"
    yield "|---|---|--:|--:|--:|"
    for name, contest in CONTESTS.items():
        entrants = results.entrants(name)
        if entrants:
            yield f"| **{contest.title}** ({contest.unit}{'' if contest.is_rate else ', p50'}) | | | | |"
        for peer, config in entrants:
            found = results.range(name, peer, config, contest.figure)
            assert found is not None
            more = [
                text.format(number(each.median))
                for figure, text in MORE
                if (each := results.range(name, peer, config, figure)) is not None
            ]
            result = "; ".join([number(found.median), *more])
            yield f"| {peer} | {config} | {result} | {_spread(found)} | {_ratio(results, name, peer, config)} |"


def _ratio(results: Results, contest: str, peer: str, config: str) -> str:
    ratio = results.ratio(contest, peer, config)
    if ratio is None or (peer, config) == ("pgflow", "best"):
        return ""
    return f"{number(ratio)}\N{MULTIPLICATION SIGN}"


def _spread(found: Range) -> str:
    return f"{number(found.low)} to {number(found.high)}"


def _costs(results: Results) -> Iterator[str]:
    for name, contest in CONTESTS.items():
        for peer, config in results.entrants(name):
            found = [results.range(name, peer, config, figure) for figure in COSTS]
            if config == "best" and None not in found:
                wal, commits, cpu = (each.median for each in found if each is not None)
                yield f"| {contest.title}: {peer} | {wal:,.0f} | {commits:.3f} | {cpu:.3f} |"


def picture(results: Results) -> str:
    """Return a plot of the medians, each at its best, a panel for each contest with all processes; ranges are lines."""
    panels = []
    for name, contest in CONTESTS.items():
        found = []
        for peer, config in results.entrants(name):
            if config != "best" or name.endswith("-1"):
                continue
            spread = results.range(name, peer, config, contest.figure)
            assert spread is not None
            ratio = _ratio(results, name, peer, config)
            text = f"{number(spread.median)}{f' ({ratio})' if ratio else ''}"
            found.append(Bar(peer, spread.median, spread.low, spread.high, text, is_ours=peer == "pgflow"))
        if found:
            better = "more is better" if contest.is_rate else "less is better"
            panels.append(Panel(contest.title, f"{contest.unit}, {better}", found))
    machine = results.machine
    said = (
        f"Each at its best, on {machine['cores']} cores with PostgreSQL {results.settings['server_version']}; "
        f"medians of {results.runs} runs. In parentheses: how many times better pgflow is."
    )
    return bars("pgflow and its peers", said, panels)
