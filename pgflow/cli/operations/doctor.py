"""`pgflow doctor`: look at a database and its workers, and say for each sign of sickness how to mend it."""

import click

from pgflow.cli.app_loader import load_app
from pgflow.cli.error_reporting import GlobalOptions
from pgflow.cli.options import app_option, result_options
from pgflow.cli.output import document, printable, table
from pgflow.database.connect import connect
from pgflow.doctor import server, upkeep, work
from pgflow.doctor.finding import NOTE, OK, PROBLEM, Check, Finding, Target

__all__ = ["CHECKS", "command"]

CHECKS: tuple[Check, ...] = (*server.CHECKS, *work.CHECKS, *upkeep.CHECKS)
HEADERS = ("CHECK", "STATE", "FOUND")
SICK = 1  # the exit code when there is a problem


@click.command("doctor")
@app_option
@result_options
def command(app: str | None, dsn: str, schema: str, as_json: bool) -> int:
    """Look at a database and its workers: what is wrong, why it matters, and how to mend it.

    Nothing is written, and no large table is read. The exit code is 1 when there is a problem; a note is none. What
    the role may not see is said. With an app, its workflows are compared with what the database knows.

    \b
    Examples:
      pgflow doctor
      pgflow doctor --app myapp.flows:app
      pgflow doctor --json --dsn postgresql://reader@db.example/shop
    """
    found = load_app(app, dsn, schema) if app else None
    if found is not None:
        dsn, schema = found.dsn, found.schema
    # As through a pooler, in any case: then it gets in, and what a connection is to have is set in each transaction.
    with connect(dsn, "read", pooler=True) as conn:
        conn.read_only = True
        spoken_of = click.get_current_context().ensure_object(GlobalOptions).pooler if found is None else found.pooler
        patient = Target(conn, dsn, schema, found, pooler=spoken_of)
        findings = [finding for check in CHECKS for finding in check.run(patient)]
    problems = sum(each.state == PROBLEM for each in findings)
    notes = sum(each.state == NOTE for each in findings)
    if as_json:
        records = [each.record() for each in findings]
        click.echo(document({"healthy": not problems, "problems": problems, "notes": notes, "findings": records}))
    else:
        click.echo(
            "\n\n".join([table(HEADERS, [(each.check, each.state, each.what) for each in findings]), *_told(findings)])
        )
        click.echo(f"\n{_count(problems, 'problem')}, {_count(notes, 'note')}.")
    return SICK if problems else 0


def _told(findings: list[Finding]) -> list[str]:
    """Return a paragraph for each finding that is not ok, problems first."""
    sick = sorted((each for each in findings if each.state != OK), key=lambda each: each.state != PROBLEM)
    paragraphs = []
    for each in sick:
        lines = [f"{each.state}: {each.check}: {each.what}", f"    why:  {each.why}"]
        if each.mend:
            lines.append(f"    mend: {each.mend}")
        paragraphs.append("\n".join(printable(line) for line in lines))
    return paragraphs


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
