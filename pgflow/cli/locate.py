"""Find the Pgflow app that a command names as `module:name`."""

import importlib
import sys
from pathlib import Path

from pgflow.app import Pgflow
from pgflow.errors import BadApp

__all__ = ["locate"]


def locate(app: str | None, dsn: str, schema: str) -> Pgflow:
    """Import and return the app. The name comes from the command line or the user's own configuration, never from data.

    A DSN or schema that the command was given replaces the app's own. Raises `BadApp`.
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
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name == error.name or module_name.startswith(error.name + ".")):
            raise
        raise BadApp(
            f"there is no module {module_name!r} here ({here})",
            hint="Run the command in the folder that holds it, or install it.",
        ) from error
    found = getattr(module, name, None)
    if not isinstance(found, Pgflow):
        apps = sorted(key for key, value in vars(module).items() if isinstance(value, Pgflow))
        what = "nothing" if found is None else f"a {type(found).__name__}, not a Pgflow app,"
        raise BadApp(
            f"module {module_name} has {what} named {name!r}", hint=f"It has: {', '.join(apps) or 'no Pgflow app'}."
        )
    if dsn or schema != "pgflow":
        return Pgflow(dsn or found.dsn, found.workflows, schema=schema if schema != "pgflow" else found.schema)
    return found
