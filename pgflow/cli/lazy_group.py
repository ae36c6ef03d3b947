"""Import a command's module only when the command is used, so that `pgflow --help` costs no more than click."""

import importlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import click

__all__ = ["DefaultGroup", "LazyCommand", "LazyGroup", "SuggestingGroup"]


class LazyCommand(NamedTuple):
    """A command's location as "module:attribute", its line in the group's help, and the section of that help."""

    target: str
    short_help: str
    section: str = "Commands"


class SuggestingGroup(click.Group):
    """A group that suggests similar names for an unknown command."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command; suggest similar names for an unknown one."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=2)
            if near:
                ctx.fail(f"No such command '{args[0]}'. Did you mean {' or '.join(near)}?")
            raise error


class LazyGroup(SuggestingGroup):
    """A group that imports a command when it is invoked or its help is shown."""

    def __init__(self, *args: Any, lazy: Mapping[str, LazyCommand], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table, which lists the most used first."""
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command and return it; None if the table does not list it."""
        if cmd_name not in self.lazy:
            return None
        module, _, attribute = self.lazy[cmd_name].target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)  # noqa: S101 - a mistake in our own table
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands from the table by section, without importing them."""
        for section in dict.fromkeys(each.section for each in self.lazy.values()):
            with formatter.section(section):
                formatter.write_dl(
                    [(name, each.short_help) for name, each in self.lazy.items() if each.section == section]
                )


class DefaultGroup(LazyGroup):
    """A group whose command `default` is meant where no command is named: `pgflow worker --app shop:app`."""

    def __init__(self, *args: Any, default: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.default = default

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Insert the name of the default command before its options, --help included: the group has none itself."""
        if not args or args[0].startswith("-"):
            args = [self.default, *args]
        return super().parse_args(ctx, args)
