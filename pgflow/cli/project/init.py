"""`pgflow init`: create a small project that runs."""

from pathlib import Path

import click

from pgflow.cli.options import debug_option, json_option
from pgflow.cli.output import print_document
from pgflow.errors import ConfigError

__all__ = ["FILES", "command"]

FLOWS = '''"""The workflows and tasks of this project."""

from pgflow import Context, Done, Ok, Pgflow, Unique, Workflow, step, task
from pydantic import BaseModel


class Order(BaseModel):
    """The input of the workflow."""

    item_count: int = 1


@step(events=("priced", "empty"))
def price(ctx: Context[Order]) -> Ok:
    """Compute the price. What a step returns is stored with the event that decides which step comes next."""
    if ctx.initial.item_count == 0:
        return Ok("empty")
    return Ok("priced", {"euros": 5 * ctx.initial.item_count})


@step(events=("sent",))
async def send_invoice(ctx: Context[Order]) -> Ok:
    """Send the invoice. A step that raises an error is tried again, after a growing pause."""
    return Ok("sent", f"{ctx.value}: {ctx.output(price)['euros']} euros")


class OrderFlow(Workflow[Order], unique=Unique("orderid")):
    """Price an order and send its invoice."""

    initial = price
    transitions = {price: {"priced": send_invoice, "empty": Done}, send_invoice: {"sent": Done}}


@task
async def greet(name: str) -> str:
    """A task: a function that is enqueued."""
    return f"hello {name}"


app = Pgflow(workflows=[OrderFlow], tasks=[greet])  # the database is read from PGFLOW_DSN
'''
TESTS = '''"""The workflow runs in memory: no database is needed."""

from pgflow.local import Local

from flows import Order, OrderFlow


def test_an_order_is_priced_and_invoiced() -> None:
    with Local(workflows=[OrderFlow]) as local:
        local.start(OrderFlow, "abc123", Order(item_count=3))
        local.drain()
        found = local.get(OrderFlow, "abc123")
    assert found.status == "completed"
    assert found.steps["send_invoice"] == "abc123: 15 euros"
'''
PROJECT = """[project]
name = "{name}"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["pgflow-engine"]

[tool.pgflow]
app = "flows:app"
"""
IGNORED = """__pycache__/
.venv/
"""
FILES = {"flows.py": FLOWS, "test_flows.py": TESTS, "pyproject.toml": PROJECT, ".gitignore": IGNORED}
LONGEST_NAME = 60  # characters


@click.command("init")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default=Path())
@json_option
@debug_option
def command(folder: Path, as_json: bool) -> None:
    """Create a small project in FOLDER, by default the current one: a workflow, a task and a test.

    Existing files are never changed: if one of them is there already, nothing is created.

    \b
    Examples:
      pgflow init shop && cd shop && pgflow dev
    """
    target = folder.absolute()
    existing = [name for name in FILES if (target / name).exists()]
    if existing:
        raise ConfigError(
            f"{target} already has {', '.join(existing)}", hint="Choose another folder: pgflow init FOLDER"
        )
    name = "".join(each if each.isascii() and each.isalnum() else "-" for each in target.name.lower()).strip("-")
    try:
        target.mkdir(parents=True, exist_ok=True)
        for path, text in FILES.items():
            # "x": a file that another process creates at the same time is not overwritten.
            with (target / path).open("x", encoding="utf-8") as file:
                file.write(text.replace("{name}", name[:LONGEST_NAME] or "flows") if path == "pyproject.toml" else text)
    except OSError as error:
        raise ConfigError(f"cannot create {error.filename or target}: {error.strerror}") from error
    if as_json:
        print_document({"folder": str(target), "files": [*FILES]})
        return
    for path in FILES:
        click.echo(f"created {folder / path}")
    enter = "" if target == Path.cwd() else f"cd {folder} && "
    click.echo(f"Next: {enter}pgflow dev")
