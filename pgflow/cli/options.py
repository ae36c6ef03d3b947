"""The options that several commands share, each written once and composed by decorators.

A flag wins over the environment, that over pyproject.toml, that over the default.
"""

import tomllib
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from pgflow.cli.error_reporting import GlobalOptions

__all__ = [
    "app_option",
    "configured_app",
    "database_options",
    "debug_option",
    "direct_options",
    "dsn_option",
    "idempotency_option",
    "json_option",
    "pooler_option",
    "reading_options",
    "schema_option",
]

Command = TypeVar("Command", bound=Callable[..., Any])
Decorator = Callable[[Command], Command]


def configured_app(folder: Path | None = None) -> str | None:
    """Return `app` of the table [tool.pgflow] in a folder's pyproject.toml (None: the current folder), if it has one.

    Raises `ConfigError` when the file cannot be read.
    """
    path = (folder or Path.cwd()) / "pyproject.toml"
    if not path.is_file():
        return None
    from pgflow.errors import ConfigError

    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {}).get("pgflow", {})
    except (OSError, ValueError) as error:  # ValueError: TOML's and Unicode's mistakes
        raise ConfigError(f"pyproject.toml cannot be read: {error}") from error
    app = settings.get("app")
    if app is not None and not isinstance(app, str):
        raise ConfigError("app in [tool.pgflow] of pyproject.toml is not a string", hint='Write app = "module:name".')
    return app


def _remember_debug(ctx: click.Context, param: click.Parameter, wanted: bool) -> None:
    session = ctx.ensure_object(GlobalOptions)
    session.debug = session.debug or wanted


# Kept beside the command, not given to it: the group looks at it when something goes wrong.
debug_option: Decorator[Any] = click.option(
    "--debug",
    is_flag=True,
    envvar="PGFLOW_DEBUG",
    expose_value=False,
    is_eager=True,
    callback=_remember_debug,
    help="Show the traceback of an error.",
)

# No default is shown: it would show a password. Empty means libpq's own PGHOST, PGSERVICE, …
dsn_option: Decorator[Any] = click.option(
    "--dsn",
    envvar=["PGFLOW_DSN", "DATABASE_URL"],
    default="",
    show_default=False,
    show_envvar=True,
    help='The database, such as "postgresql://user@host/name"; otherwise what the PG* variables say.',
)


def _remember_pooler(ctx: click.Context, param: click.Parameter, said: bool) -> None:
    ctx.ensure_object(GlobalOptions).pooler = said


# Kept beside the command, too: who opens its connection looks at it.
pooler_option: Decorator[Any] = click.option(
    "--pooler",
    is_flag=True,
    envvar="PGFLOW_POOLER",
    show_default=False,
    show_envvar=True,
    expose_value=False,
    callback=_remember_pooler,
    help="The database is behind a connection pooler in transaction mode, such as PgBouncer.",
)

schema_option: Decorator[Any] = click.option(
    "--schema", envvar="PGFLOW_SCHEMA", default="pgflow", show_envvar=True, help="The schema that pgflow lives in."
)

json_option: Decorator[Any] = click.option(
    "--json", "as_json", is_flag=True, show_default=False, help="Print one JSON document."
)

app_option: Decorator[Any] = click.option(
    "-A",
    "--app",
    envvar="PGFLOW_APP",
    default=configured_app,
    show_default="app of [tool.pgflow] in pyproject.toml",
    show_envvar=True,
    metavar="MODULE:NAME",
    help="Where the Pgflow app is.",
)


idempotency_option: Decorator[Any] = click.option(
    "--idempotency-key",
    metavar="KEY",
    help="Do it once, however often this is called with the same key; a later call tells what the first one did.",
)


def database_options(command: Command) -> Command:
    """Add --dsn, --pooler, --schema and --debug: the command gets `dsn` (may be empty) and `schema`."""
    return cast(Command, _compose(dsn_option, pooler_option, schema_option, debug_option)(command))


def direct_options(command: Command) -> Command:
    """Add --dsn, --schema and --debug, for a command that goes to PostgreSQL itself."""
    return cast(Command, _compose(dsn_option, schema_option, debug_option)(command))


def reading_options(command: Command) -> Command:
    """Add --dsn, --pooler, --schema, --json and --debug: the command gets `dsn`, `schema` and `as_json`."""
    return cast(Command, _compose(dsn_option, pooler_option, schema_option, json_option, debug_option)(command))


def _compose(*decorators: Decorator[Any]) -> Decorator[Any]:
    """One decorator out of several; the help lists their options in this order."""

    def decorate(command: Any) -> Any:
        return reduce(lambda done, decorator: decorator(done), reversed(decorators), command)

    return decorate
