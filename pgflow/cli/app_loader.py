"""Import the Pgflow app that a command names as `module:name`."""

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

    `dsn` and `schema` are the command's options. --dsn, --schema, --pooler and PGFLOW_SCHEMA override the app's own
    settings. PGFLOW_DSN does not: an app without a DSN of its own has read it already.
    Raises `BadApp`.
    """
    if not app:
        raise BadApp(
            "no app given",
            hint="Pass --app module:name, or set PGFLOW_APP, or app in [tool.pgflow] of pyproject.toml.",
        )
    module_name, separator, name = app.partition(":")
    if not separator or not module_name or not name:
        raise BadApp(
            f"--app must have the form module:name, got {app!r}",
            hint="For the object app in myapp/flows.py: --app myapp.flows:app",
        )
    module = _import(module_name)
    found = getattr(module, name, None)
    if not isinstance(found, Pgflow):
        apps = sorted(key for key, value in vars(module).items() if isinstance(value, Pgflow))
        reason = "does not exist" if found is None else f"is of type {type(found).__name__}, not a Pgflow app"
        raise BadApp(
            f"{name!r} in module {module_name} {reason}", hint=f"Apps in this module: {', '.join(apps) or 'none'}."
        )
    source = click.get_current_context().get_parameter_source
    is_dsn_given = source("dsn") is ParameterSource.COMMANDLINE
    is_schema_given = source("schema") in (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)
    is_pooler_given = source("pooler") is ParameterSource.COMMANDLINE
    if not is_dsn_given and not is_schema_given and not is_pooler_given:
        return found
    return Pgflow(
        dsn if is_dsn_given else found.dsn,
        found.workflows,
        found.tasks,
        schedules=found.declared_schedules,
        queues=found.declared_queues,
        name=found.name,
        schema=schema if is_schema_given else found.schema,
        codec=found.codec,
        middleware=found.middleware,
        max_payload_bytes=found.payloads.limit,
        payload_store=found.payloads.store,
        store_above=None if found.payloads.store is None else found.payloads.store_above,
        pooler=is_pooler_given or found.pooler,
        retention=found.retention,
        on_prune=found.on_prune,
    )


def _import(name: str) -> ModuleType:
    """Import the user's module from the current directory or `sys.path`. Raises `BadApp` for whatever it raises."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(error.name + ".")):
            raise BadApp(
                f"no module named {name!r} in {here} or on Python's path",
                hint="Run the command in the directory that contains it, or install it.",
            ) from error
        raise _import_failed(name, error) from error
    except PgflowError as error:
        # Usually a `DefinitionError`: keep its class, for its exit code, and its hint.
        raise type(error)(f"importing {name} failed: {type(error).__name__}: {error}", hint=error.hint) from error
    except (Exception, SystemExit) as error:  # SystemExit: the module calls sys.exit()
        raise _import_failed(name, error) from error


def _import_failed(name: str, error: BaseException) -> BadApp:
    description = f"{type(error).__name__}: {error}".rstrip(": ")
    return BadApp(f"importing {name} failed: {description}", hint="Run again with --debug for the traceback.")
