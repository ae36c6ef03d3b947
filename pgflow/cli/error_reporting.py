"""Say in one line on stderr what went wrong, and end with the exit code that scripts can rely on."""

import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from pgflow.cli.lazy_group import LazyGroup

if TYPE_CHECKING:
    from pgflow.errors import PgflowError

__all__ = ["INTERRUPTED", "ErrorReportingGroup", "GlobalOptions", "error_line", "report"]

INTERRUPTED = 130  # 128 + SIGINT, as shells have it
SERVER_GONE = ("08", "53", "57P")  # classes of SQLSTATE: connection, resources, shut down
OUR_MISTAKE = "42"  # syntax and access rule violations
NOT_OUR_MISTAKE = frozenset({"42501", "42939"})  # no privilege, a reserved name


@dataclass(slots=True)
class GlobalOptions:
    """What one call of the command line knows beside its commands' options.

    Whether it was asked for tracebacks, and whether a pooler stands before the database.
    """

    debug: bool = False
    pooler: bool = False


class ErrorReportingGroup(LazyGroup):
    """A group that turns every exception into one line and an exit code; its commands just raise.

    What a command returns is the exit code: None for 0.
    """

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command line and exit; with `standalone_mode=False` return, and let exceptions through."""
        session = extra.setdefault("obj", GlobalOptions())
        try:
            code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        except Exception as error:
            # The last line of defence: nobody is to see a traceback unasked.
            if not standalone_mode:
                raise
            code = report(error, debug=session.debug)
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
        traceback.print_exception(error)
    known = _known(error)
    if known is not None:
        click.echo(error_line(known), err=True)
        return known.exit_code
    said = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".: ")
    advice = "." if debug else ". Run again with --debug for the traceback."
    click.echo(f"pgflow: internal error: {said}{advice}", err=True)
    return 1


def error_line(error: "PgflowError") -> str:
    """Return the line about an error: what, why, and the next step.

    error_line(SchemaMissing('schema "pgflow" holds no pgflow yet', hint="Run: pgflow migrate"))
    """
    said = " ".join(str(error).split())
    if not error.hint:
        return f"pgflow: {said}"
    return f"pgflow: {said.rstrip('.')}. {' '.join(error.hint.split())}"


def _known(error: Exception) -> "PgflowError | None":
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
    said = error.diag.message_primary or str(error).strip() or type(error).__name__
    if isinstance(error, psycopg.OperationalError) and (not code or code.startswith(SERVER_GONE)):
        return Unreachable(f"the connection to PostgreSQL was lost: {said}", hint="Try again when it is back.")
    refused = translate(error)
    if refused is None and code and (code in NOT_OUR_MISTAKE or not code.startswith(OUR_MISTAKE)):
        return DatabaseError(f"PostgreSQL refused: {said}", hint=error.diag.message_hint)
    return refused
