"""`pgflow doctor`: render the findings about a database and its workers."""

import click

from pgflow.cli.app_loader import load_app
from pgflow.cli.error_reporting import GlobalOptions
from pgflow.cli.options import app_option, result_options
from pgflow.cli.output import print_document, printable, table
from pgflow.doctor.checks import examine
from pgflow.doctor.finding import NOTE, OK, PROBLEM, Finding

__all__ = ["command"]

HEADERS = ("CHECK", "STATE", "FOUND")
PROBLEMS_FOUND = 1  # the exit code


@click.command("doctor")
@app_option
@result_options
def command(app: str | None, dsn: str, schema: str, as_json: bool) -> int:
    """Check a database and its workers: what is wrong, why it matters, and how to fix it.

    Writes nothing and reads no large table. The exit code is 1 when there is a problem, and 0 when there are only
    notes. A check that the role may not run is a note. With an app, its workflows are compared with the stored ones.

    \b
    Examples:
      pgflow doctor
      pgflow doctor --app myapp.flows:app
      pgflow doctor --json --dsn postgresql://reader@db.example/shop
    """
    loaded = load_app(app, dsn, schema) if app else None
    if loaded is None:
        uses_pooler = click.get_current_context().ensure_object(GlobalOptions).pooler
        findings = examine(dsn, schema, uses_pooler=uses_pooler)
    else:
        findings = examine(loaded.dsn, loaded.schema, loaded, uses_pooler=loaded.pooler)
    problems = sum(each.state == PROBLEM for each in findings)
    notes = sum(each.state == NOTE for each in findings)
    if as_json:
        records = [each.record() for each in findings]
        print_document({"healthy": not problems, "problems": problems, "notes": notes, "findings": records})
    else:
        rows = [(each.check, each.state, each.what) for each in findings]
        click.echo("\n\n".join([table(HEADERS, rows), *_paragraphs(findings)]))
        click.echo(f"\n{_count(problems, 'problem')}, {_count(notes, 'note')}.")
    return PROBLEMS_FOUND if problems else 0


def _paragraphs(findings: list[Finding]) -> list[str]:
    """Return a paragraph for each finding that is not ok, problems first."""
    attention = sorted((each for each in findings if each.state != OK), key=lambda each: each.state != PROBLEM)
    paragraphs = []
    for each in attention:
        lines = [f"{each.state}: {each.check}: {each.what}", f"    why: {each.why}"]
        if each.fix:
            lines.append(f"    fix: {each.fix}")
        paragraphs.append("\n".join(printable(line) for line in lines))
    return paragraphs


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
