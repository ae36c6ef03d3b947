"""Options shared by several commands, each defined once, and decorators that combine them.

A flag wins over the environment, which wins over pyproject.toml, which wins over the default.
"""

from collections.abc import Callable
from functools import reduce
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from pgflow.cli.error_reporting import GlobalOptions

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "Decorator",
    "app_option",
    "configured_app",
    "database_options",
    "debug_option",
    "direct_options",
    "dsn_option",
    "idempotency_option",
    "json_option",
    "pooler_option",
    "result_options",
    "schema_option",
]

Command = TypeVar("Command", bound=Callable[..., Any])
Decorator = Callable[[Command], Command]


def configured_app(folder: "Path | None" = None) -> str | None:
    """Return `app` of the table [tool.pgflow] in a directory's pyproject.toml (by default the current one), or None.

    Raises `ConfigError` when the file is unreadable or invalid.
    """
    import tomllib
    from pathlib import Path

    path = (folder or Path.cwd()) / "pyproject.toml"
    if not path.is_file():
        return None
    from pgflow.errors import ConfigError

    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {}).get("pgflow", {})
    except (OSError, ValueError) as error:  # ValueError: invalid TOML or UTF-8
        raise ConfigError(f"cannot read pyproject.toml: {error}") from error
    app = settings.get("app")
    if app is not None and not isinstance(app, str):
        raise ConfigError("pyproject.toml: app in [tool.pgflow] must be a string", hint='Write app = "module:name".')
    return app


def _store_debug(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    options = ctx.ensure_object(GlobalOptions)
    options.debug = options.debug or value


# Stored in the context, not passed to the command: the group reads it when the command raises.
debug_option: Decorator[Any] = click.option(
    "--debug",
    is_flag=True,
    envvar="PGFLOW_DEBUG",
    expose_value=False,
    is_eager=True,
    callback=_store_debug,
    help="Show the traceback of an error.",
)

# The default is hidden because it may contain a password. Empty means libpq's PGHOST, PGSERVICE, …
dsn_option: Decorator[Any] = click.option(
    "--dsn",
    envvar=["PGFLOW_DSN", "DATABASE_URL"],
    default="",
    show_default=False,
    show_envvar=True,
    help='Database to connect to, such as "postgresql://user@host/name"; by default from the PG* variables.',
)


def _store_pooler(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    ctx.ensure_object(GlobalOptions).pooler = value


# Stored in the context, too: read when the connection is opened.
pooler_option: Decorator[Any] = click.option(
    "--pooler",
    is_flag=True,
    envvar="PGFLOW_POOLER",
    show_default=False,
    show_envvar=True,
    expose_value=False,
    callback=_store_pooler,
    help="The DSN leads to a connection pooler in transaction mode, such as PgBouncer.",
)

schema_option: Decorator[Any] = click.option(
    "--schema", envvar="PGFLOW_SCHEMA", default="pgflow", show_envvar=True, help="Schema of pgflow's tables."
)


def _store_lines(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    ctx.ensure_object(GlobalOptions).json_lines = value


def _or_lines(ctx: click.Context, param: click.Parameter, value: bool) -> bool:
    return value or ctx.ensure_object(GlobalOptions).json_lines


def json_option(command: Command) -> Command:
    """Add --json and --jsonl: the command gets `as_json`, also for --jsonl, which `output.document` reads."""
    as_document = click.option(
        "--json",
        "as_json",
        is_flag=True,
        show_default=False,
        callback=_or_lines,
        help="Print the result as one JSON document.",
    )
    as_lines = click.option(
        "--jsonl",
        is_flag=True,
        show_default=False,
        is_eager=True,  # before --json, whose value it changes
        expose_value=False,
        callback=_store_lines,
        help="Print one line of JSON for each element of the list, or the document in one line.",
    )
    return cast(Command, _compose(as_document, as_lines)(command))


app_option: Decorator[Any] = click.option(
    "-A",
    "--app",
    envvar="PGFLOW_APP",
    default=configured_app,
    show_default="app of [tool.pgflow] in pyproject.toml",
    show_envvar=True,
    metavar="MODULE:NAME",
    help="Pgflow app to import.",
)


idempotency_option: Decorator[Any] = click.option(
    "--idempotency-key",
    metavar="KEY",
    help="Makes the call safe to repeat: a later call with the same key returns the first one's result.",
)


def database_options(command: Command) -> Command:
    """Add --dsn, --pooler, --schema and --debug: the command gets `dsn` (may be empty) and `schema`."""
    return cast(Command, _compose(dsn_option, pooler_option, schema_option, debug_option)(command))


def direct_options(command: Command) -> Command:
    """Add --dsn, --schema and --debug, for a command that cannot work through a pooler."""
    return cast(Command, _compose(dsn_option, schema_option, debug_option)(command))


def result_options(command: Command) -> Command:
    """Add --json to `database_options`: the command gets `dsn`, `schema` and `as_json`."""
    return cast(Command, _compose(dsn_option, pooler_option, schema_option, json_option, debug_option)(command))


def _compose(*decorators: Decorator[Any]) -> Decorator[Any]:
    """Combine decorators into one; the help lists their options in this order."""

    def decorate(command: Any) -> Any:
        return reduce(lambda done, decorator: decorator(done), reversed(decorators), command)

    return decorate
