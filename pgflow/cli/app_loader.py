"""Find the Pgflow app that a command names as `module:name`."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import click
from click.core import ParameterSource

from pgflow.app import Pgflow
from pgflow.errors import BadApp, PgflowError

__all__ = ["load_app"]


def load_app(app: str | None, dsn: str, schema: str) -> Pgflow:
    """Import and return the app. The name comes from the command line or the user's own configuration, never from data.

    `dsn` and `schema` are the command's options. On the command line they replace the app's own, and the schema also by
    PGFLOW_SCHEMA; PGFLOW_DSN counts only for an app that was made without a DSN, which has looked there by itself.
    The same holds for --pooler.
    Raises `BadApp`.
    """
    if not app:
        raise BadApp(
            "no app is named",
            hint="Say where it is: --app module:name, or PGFLOW_APP, or app in [tool.pgflow] of pyproject.toml.",
        )
    module_name, separator, name = app.partition(":")
    if not separator or not module_name or not name:
        raise BadApp(
            f"--app {app!r} is not of the form module:name",
            hint="For the object app in myapp/flows.py: --app myapp.flows:app",
        )
    module = _import(module_name)
    found = getattr(module, name, None)
    if not isinstance(found, Pgflow):
        apps = sorted(key for key, value in vars(module).items() if isinstance(value, Pgflow))
        what = "is not there" if found is None else f"is of type {type(found).__name__}, no Pgflow app"
        raise BadApp(f"{name!r} in module {module_name} {what}", hint=f"It has: {', '.join(apps) or 'no Pgflow app'}.")
    told = click.get_current_context().get_parameter_source
    is_dsn_given = told("dsn") is ParameterSource.COMMANDLINE
    is_schema_given = told("schema") in (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)
    is_pooler_given = told("pooler") is ParameterSource.COMMANDLINE
    if not is_dsn_given and not is_schema_given and not is_pooler_given:
        return found
    return Pgflow(
        dsn if is_dsn_given else found.dsn,
        found.workflows,
        schema=schema if is_schema_given else found.schema,
        codec=found.codec,
        pooler=is_pooler_given or found.pooler,
    )


def _import(name: str) -> ModuleType:
    """Import the user's module from the current folder or wherever Python finds it; what it raises becomes one line."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise BadApp(
                f"there is no module {name!r} here ({here})",
                hint="Run the command in the folder that holds it, or install it.",
            ) from error
        raise _failed(name, error) from error
    except PgflowError as error:
        # A workflow that is defined wrongly, most of all: its own exit code and mend.
        raise type(error)(f"importing {name} failed: {type(error).__name__}: {error}", hint=error.hint) from error
    except (Exception, SystemExit) as error:  # a module that calls sys.exit() has not been imported either
        raise _failed(name, error) from error


def _failed(name: str, error: BaseException) -> BadApp:
    said = f"{type(error).__name__}: {error}".rstrip(": ")
    return BadApp(f"importing {name} failed: {said}", hint="The traceback is shown with --debug.")
