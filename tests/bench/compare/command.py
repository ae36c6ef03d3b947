"""Run all contests, alternating the peers, and print one table."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import click

from pgflow.bench import machine
from pgflow.bench.environment import sigterm_as_interrupt
from tests.bench.compare import environments
from tests.bench.compare.arena import Arena, Failed
from tests.bench.compare.contests import CONTESTS
from tests.bench.compare.environments import Missing
from tests.bench.compare.outcome import Outcome, Results
from tests.bench.compare.report import markdown, picture
from tests.bench.compare.roster import CONFIGS, PEERS, Peer

__all__ = ["command"]

DISTURBED = 0.2  # repeat a run when other processes use more of the machine
NAMES = [peer.name for peer in PEERS]


@click.command(context_settings={"show_default": True, "help_option_names": ["-h", "--help"]})
@click.argument("contests", nargs=-1, metavar="[CONTEST]...", type=click.Choice(list(CONTESTS)))
@click.option("--peer", "peers", multiple=True, type=click.Choice(NAMES), default=NAMES, help="Who takes part.")
@click.option("--config", "configs", multiple=True, type=click.Choice(CONFIGS), default=CONFIGS, help="And how.")
@click.option("--repeat", type=click.IntRange(1), default=3, help="Runs of each, in turn.")
@click.option("--scale", type=click.FloatRange(0.0001, 100), default=1.0, help="How much of the usual work.")
@click.option("--tries", type=click.IntRange(1), default=3, help="Of a run, when others use too much of the machine.")
@click.option("--patience", type=click.FloatRange(0), default=30.0, help="Seconds to wait for others before each.")
@click.option(
    "--envs",
    type=click.Path(path_type=Path),
    default=environments.default_folder,
    show_default="below the user's folder for caches",
    help="Where the peers' environments are, or are made.",
)
@click.option(
    "--add",
    "earlier",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A file of an earlier --json on this machine, whose runs count, too.",
)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write every figure of every run here.")
@click.option("--svg", type=click.Path(path_type=Path), help="Draw a plot of the medians here.")
def command(
    contests: tuple[str, ...],
    peers: tuple[str, ...],
    configs: tuple[str, ...],
    repeat: int,
    scale: float,
    tries: int,
    patience: float,
    envs: Path,
    earlier: tuple[Path, ...],
    json_path: Path | None,
    svg: Path | None,
) -> None:
    """Compare pgflow with other engines on PostgreSQL, side by side on one server, and print a Markdown table.

    The peers alternate: each repetition runs every contest once, each peer on an empty database. A run is repeated when
    other processes use much of the machine. Peers are installed by pip, from pins, when they are first needed. Failures
    are listed at the end; Ctrl-C stops early and reports the completed runs.

    \b
    Contests: enqueue enqueue-many start start-many task-1 task-2 single-2 chain-1 chain-2 fan-1 fan-2
    latency latency-start finish
    """
    results = Results(repeat=repeat, machine=machine.describe())
    for path in earlier:
        results.take_over(json.loads(path.read_text()))
    pythons = dict(_installed([peer for peer in PEERS if peer.name in peers], envs, results))
    with sigterm_as_interrupt(), Arena(envs) as arena, suppress(KeyboardInterrupt):
        results.settings = arena.settings()
        for number in range(1, repeat + 1):
            for name in contests or CONTESTS:
                for peer, config in _entrants(name, tuple(pythons), configs, backwards=number % 2 == 0):
                    label = f"{number}/{repeat} {name}: {peer.name} ({config}) "
                    hold = partial(_hold, arena, name, peer, config, pythons[peer], scale)
                    results.add(_undisturbed(arena, hold, label, tries, patience))
    click.echo(markdown(results))
    if json_path is not None:
        json_path.write_text(json.dumps(results.record(), indent=2) + "\n")
    if svg is not None:
        svg.write_text(picture(results) + "\n")
    click.get_current_context().exit(1 if results.failures else 0)


def _installed(peers: Sequence[Peer], envs: Path, results: Results) -> Iterator[tuple[Peer, Path]]:
    for peer in peers:
        try:
            python = environments.interpreter(peer, envs)
            results.versions[peer.name] = environments.version(peer, python)
        except Missing as missing:
            results.fail(f"{peer.name} could not be installed: {missing}")
        else:
            yield peer, python


def _entrants(name: str, peers: Sequence[Peer], configs: Sequence[str], *, backwards: bool) -> list[tuple[Peer, str]]:
    contest = CONTESTS[name]
    found = [
        (peer, config)
        for peer in peers
        if contest.kind in peer.jobs and name in (peer.contests or CONTESTS)
        for config in contest.configs
        if config in configs and config in peer.configs
    ]
    return found[::-1] if backwards else found


def _undisturbed(arena: Arena, hold: Callable[[], Outcome], label: str, tries: int, patience: float) -> Outcome:
    """Run once, and again when other load disturbed it; return the least disturbed run."""
    outcomes: list[Outcome] = []
    for _ in range(tries):
        arena.wait_for_quiet(patience)
        _print(label)
        outcomes.append(hold())
        if outcomes[-1].failed is not None or outcomes[-1].others <= DISTURBED:
            return outcomes[-1]
    return min(outcomes, key=lambda outcome: outcome.others)


def _hold(arena: Arena, name: str, peer: Peer, config: str, python: Path, scale: float) -> Outcome:
    began, other_load = time.monotonic(), arena.other_load()
    try:
        with arena.bout(peer, config, python) as bout:
            figures = CONTESTS[name].measure(bout, scale)
    except Failed as failed:
        _print(f"FAILED: {failed}\n")
        return Outcome(name, peer.name, config, {}, str(failed))
    text = "  ".join(f"{key} {value:,.4g}" for key, value in figures.items())
    others = other_load.share()
    _print(f"{text}  ({time.monotonic() - began:.0f} s, others {others:.0%})\n")
    return Outcome(name, peer.name, config, figures, others=others)


def _print(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()
