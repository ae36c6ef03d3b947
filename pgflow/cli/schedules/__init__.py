"""`pgflow schedule`: the commands about schedules, a module each."""

import click

from pgflow.cli.lazy_group import LazyCommand, LazyGroup

__all__ = ["command"]

COMMANDS = {
    "list": LazyCommand("pgflow.cli.schedules.list_:command", "List schedules, with their next instants."),
    "next": LazyCommand("pgflow.cli.schedules.next_:command", "Print the next instants of a schedule."),
    "add": LazyCommand("pgflow.cli.schedules.add:command", "Add a schedule."),
    "pause": LazyCommand("pgflow.cli.schedules.pause:command", "Pause a schedule."),
    "resume": LazyCommand("pgflow.cli.schedules.resume:command", "Resume a paused schedule."),
    "run": LazyCommand("pgflow.cli.schedules.run_:command", "Start a run of a schedule now."),
    "backfill": LazyCommand("pgflow.cli.schedules.backfill:command", "Start the runs of a range of instants."),
    "remove": LazyCommand("pgflow.cli.schedules.remove:command", "Remove a schedule."),
}


@click.group("schedule", cls=LazyGroup, lazy=COMMANDS)
def command() -> None:
    """List and change schedules: when workflows are started by themselves.

    \b
    Examples:
      pgflow schedule list
      pgflow schedule add weekly SendReport --cron "0 9 * * mon" --tz Europe/Berlin
      pgflow schedule pause weekly
    """
