"""`pgflow config show`: which settings apply, and where each comes from."""

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import click
from click.core import ParameterSource

from pgflow.cli.error_reporting import GlobalOptions
from pgflow.cli.lazy_group import SuggestingGroup
from pgflow.cli.options import app_option, configured_app, result_options
from pgflow.cli.output import print_document, table
from pgflow.config import DSN_VARIABLES
from pgflow.database.dsn import defaults, parse

__all__ = ["command"]

SHOWN = ("host", "hostaddr", "port", "dbname", "user", "service", "sslmode", "password")
VARIABLES = {
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "port": "PGPORT",
    "dbname": "PGDATABASE",
    "user": "PGUSER",
    "service": "PGSERVICE",
    "sslmode": "PGSSLMODE",
    "password": "PGPASSWORD",
}
HIDDEN = "(set, not shown)"


class Setting(NamedTuple):
    """A setting, its value as text, and where it comes from."""

    name: str
    value: str | None
    origin: str


@click.group("config", cls=SuggestingGroup)
def command() -> None:
    """Show the settings and where they come from."""


@command.command("show")
@click.option("--origin", "shows_origin", is_flag=True, show_default=False, help="Also where each value comes from.")
@app_option
@result_options
def show(shows_origin: bool, app: str | None, dsn: str, schema: str, as_json: bool) -> None:
    """Show the settings that a command would use here: an option wins over its variable, and that over pyproject.toml.

    A password is never shown. Nothing is connected to.

    \b
    Examples:
      pgflow config show --origin
      PGFLOW_SCHEMA=orders pgflow config show --json
    """
    found = [*_settings(app, dsn, schema)]
    if as_json:
        print_document({"settings": [each._asdict() for each in found]})
    elif shows_origin:
        click.echo(table(("SETTING", "VALUE", "ORIGIN"), found))
    else:
        click.echo(table(("SETTING", "VALUE"), [each[:2] for each in found]))


def _settings(app: str | None, dsn: str, schema: str) -> Iterator[Setting]:
    yield Setting("app", app, _origin("app", "PGFLOW_APP"))
    params, libpq = parse(dsn), defaults()
    given = _origin("dsn", *DSN_VARIABLES)
    for name in SHOWN:
        if name in params:
            yield Setting(f"dsn.{name}", HIDDEN if name == "password" else params[name], given)
        elif name in libpq and "service" not in params:
            variable = VARIABLES[name]
            origin = f"variable {variable}" if os.environ.get(variable) else "default of libpq"
            yield Setting(f"dsn.{name}", HIDDEN if name == "password" else libpq[name], origin)
    yield Setting("schema", schema, _origin("schema", "PGFLOW_SCHEMA"))
    options = click.get_current_context().ensure_object(GlobalOptions)
    yield Setting("pooler", _word(options.pooler), _origin("pooler", "PGFLOW_POOLER"))
    yield Setting("debug", _word(options.debug), _origin("debug", "PGFLOW_DEBUG"))
    level = os.environ.get("PGFLOW_LOG_LEVEL")
    yield Setting("log level", level or "info", "variable PGFLOW_LOG_LEVEL" if level else "default")


def _origin(parameter: str, *variables: str) -> str:
    context: Any = click.get_current_context()
    source = context.get_parameter_source(parameter)
    if source is ParameterSource.COMMANDLINE:
        return f"option --{parameter}"
    if source is ParameterSource.ENVIRONMENT:
        return f"variable {next(name for name in variables if os.environ.get(name))}"
    if parameter == "app" and configured_app() is not None:
        return "pyproject.toml, [tool.pgflow]"
    return "default"


def _word(value: bool) -> str:
    return "yes" if value else "no"
