"""All options that take a duration share one syntax."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import click
import pytest
from click.testing import CliRunner

from pgflow.cli import cli
from pgflow.cli.instances import prune, resume, start
from pgflow.cli.operations import migrate, worker
from pgflow.cli.parameters import Duration, format_duration, parse_duration
from pgflow.errors import ConfigError

COMMANDS: dict[str, click.Command] = {
    "worker": worker.command,
    "migrate": migrate.command,
    "prune": prune.command,
    "start": start.command,
    "resume": resume.command,
}
READ = {
    "500ms": timedelta(milliseconds=500),
    "30s": timedelta(seconds=30),
    "1.5s": timedelta(seconds=1.5),
    "10m": timedelta(minutes=10),
    "1h30m": timedelta(hours=1, minutes=30),
    "2d": timedelta(days=2),
    "8w": timedelta(weeks=8),
    "0s": timedelta(0),
}


def options() -> Iterator[tuple[str, str, Duration]]:
    """Yield the command, name and type of each option that takes a duration."""
    for name, command in COMMANDS.items():
        for param in command.params:
            if isinstance(param.type, Duration):
                yield name, param.opts[0], param.type


def test_all_options_for_durations_are_known() -> None:
    assert {(command, option) for command, option, _ in options()} == {
        *(("worker", option) for option in ("--poll", "--lease", "--sweep", "--shutdown-timeout", "--max-lifetime")),
        ("migrate", "--wait"),
        ("prune", "--older-than"),
        *(("start", option) for option in ("--delay", "--expires-in", "--deadline")),
        ("resume", "--delay"),
    }


@pytest.mark.parametrize(("text", "duration"), READ.items())
def test_a_duration_is_a_sequence_of_numbers_with_units(text: str, duration: timedelta) -> None:
    for _, _, kind in options():
        if kind.least <= duration <= kind.most:
            assert kind.convert(text, None, None) == duration


@pytest.mark.parametrize("text", ["", "s", "30x", "-3s", "3 s", "1h 30m", "nan", "inf", "1e9999", "٣s", "30s\n"])
def test_an_invalid_duration_is_refused_with_the_syntax(text: str) -> None:
    for _, _, kind in options():
        with pytest.raises(ConfigError, match="is not a valid duration") as caught:
            kind.convert(text, None, None)
        assert "use a number with a unit, such as 30s, 5m, 1h30m or 2d" in str(caught.value)
        assert caught.value.hint == "Units: ms, s, m, h, d, w."


@pytest.mark.parametrize(("text", "seconds"), [("30", 30), ("0.5", 0.5), (".5", 0.5), ("5.", 5), ("2e1", 20)])
def test_a_number_without_a_unit_is_seconds_for_worker_and_migrate(text: str, seconds: float) -> None:
    assert parse_duration(text, bare=True) == timedelta(seconds=seconds)
    with pytest.raises(ConfigError, match="is not a valid duration"):
        parse_duration(text)
    assert {command for command, _, kind in options() if kind.bare} == {"worker", "migrate"}


@pytest.mark.parametrize("given", ["499ms", "0.4", "1h1s", "3601"])
def test_a_lease_out_of_range_is_refused_with_the_range(given: str) -> None:
    done = CliRunner().invoke(cli, ["worker", "--app", "x:y", "--lease", given])
    assert (done.exit_code, done.stderr) == (2, f"pgflow: --lease must be between 500ms and 1h, got {given}\n")


@pytest.mark.parametrize("duration", [*READ.values(), timedelta(seconds=90), timedelta(milliseconds=1.5)])
def test_a_formatted_duration_parses_to_the_same_duration(duration: timedelta) -> None:
    assert parse_duration(format_duration(duration)) == duration


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_shows_the_syntax(command: str) -> None:
    text: Any = " ".join(CliRunner().invoke(cli, [command, "--help"]).stdout.split())
    assert "DURATION" in text
    assert any(example in text for example in ("1h30m", "30d", "1m30s", "90s"))
