"""Report errors as one line on stderr and an exit code that scripts can rely on."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from pgflow.cli.lazy_group import LazyGroup

if TYPE_CHECKING:
    from pgflow.errors import PgflowError

__all__ = ["INTERRUPTED", "ErrorReportingGroup", "GlobalOptions", "error_line", "report"]

INTERRUPTED = 130  # 128 + SIGINT, the shells' convention
UNAVAILABLE_CLASSES = ("08", "53", "57P")  # SQLSTATE: connection exception, insufficient resources, server shutdown
BUG_CLASS = "42"  # SQLSTATE: syntax error or access rule violation, which is a bug in pgflow ...
NO_RIGHT = "42501"
NO_RIGHT_HINT = "migrate needs the owner of the schema; who grants rights for all else, see: pgflow roles --help"
NOT_BUGS = frozenset({NO_RIGHT, "42939"})  # ... except insufficient_privilege and reserved_name


class GlobalOptions:
    """Options of the whole invocation: show tracebacks; the DSN leads to a pooler; JSON documents as lines."""

    def __init__(self) -> None:
        self.debug = False
        self.pooler = False
        self.json_lines = False


class ErrorReportingGroup(LazyGroup):
    """A group that turns each exception of its commands into one line and an exit code.

    A command's return value is its exit code; None means 0.
    """

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command line and exit; with `standalone_mode=False` return, and let exceptions propagate."""
        options = extra.setdefault("obj", GlobalOptions())
        try:
            code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        except Exception as error:
            # Catches everything: without --debug the user never sees a traceback.
            if not standalone_mode:
                raise
            code = report(error, debug=options.debug)
        if standalone_mode:
            sys.exit(code or 0)
        return code


def report(error: Exception, *, debug: bool = False) -> int:
    """Print one line about `error` on stderr, after its traceback if `debug`, and return the exit code."""
    match error:
        case click.ClickException():
            error.show()
            return error.exit_code
        case click.Abort() if isinstance(error.__cause__, KeyboardInterrupt):
            return INTERRUPTED
        case click.Abort():
            click.echo("pgflow: aborted", err=True)
            return 1
    if debug:
        import traceback

        traceback.print_exception(error)
    known = _as_pgflow_error(error)
    if known is not None:
        click.echo(error_line(known), err=True)
        return known.exit_code
    description = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".: ")
    advice = "." if debug else ". Run again with --debug for the traceback."
    click.echo(f"pgflow: internal error: {description}{advice}", err=True)
    return 1


def error_line(error: "PgflowError") -> str:
    """Return an error's message and hint in one line.

    error_line(SchemaMissing('schema "pgflow" does not exist', hint="Run: pgflow migrate"))
    """
    message = " ".join(str(error).split())
    if not error.hint:
        return f"pgflow: {message}"
    return f"pgflow: {message.rstrip('.')}. {' '.join(error.hint.split())}"


def _as_pgflow_error(error: Exception) -> "PgflowError | None":
    """Return the `PgflowError` that an exception is, or that a psycopg error translates to; None for a bug."""
    from pgflow.errors import DatabaseError, PgflowError, Unreachable

    if isinstance(error, PgflowError):
        return error
    if "psycopg" not in sys.modules:
        return None
    import psycopg

    from pgflow.database.sqlstate import translate

    if not isinstance(error, psycopg.Error):
        return None
    code = error.sqlstate or ""
    message = error.diag.message_primary or str(error).strip() or type(error).__name__
    if isinstance(error, psycopg.OperationalError) and (not code or code.startswith(UNAVAILABLE_CLASSES)):
        return Unreachable(f"lost the connection to PostgreSQL: {message}", hint="Try again when it is available.")
    translated = translate(error)
    if translated is None and code and (code in NOT_BUGS or not code.startswith(BUG_CLASS)):
        hint = NO_RIGHT_HINT if code == NO_RIGHT else error.diag.message_hint
        return DatabaseError(f"PostgreSQL error: {message}", hint=hint)
    return translated
