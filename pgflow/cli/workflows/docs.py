"""`pgflow docs`: write each workflow's picture into its docstring, and keep it there up to date."""

import io
import os
import shutil
import sys
import tempfile
import tokenize
from pathlib import Path
from typing import Any

import click

from pgflow.cli.app_loader import load_app
from pgflow.cli.options import app_option, debug_option
from pgflow.cli.output import print_notice, printable
from pgflow.core import picture
from pgflow.core.definition.workflow import Workflow
from pgflow.errors import Invalid

__all__ = ["command"]

INSTALLED = {"site-packages", "dist-packages"}


@click.command("docs")
@app_option
@click.option(
    "--path",
    "root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=".",
    help="Touch only files below this folder.",
)
@click.option(
    "--check", is_flag=True, show_default=False, help="Write nothing, and exit with 1 if a picture is out of date."
)
@debug_option
def command(app: str | None, root: Path, check: bool) -> int:
    """Write the picture of each workflow of an app into its docstring, where help() and editors show it.

    It stands between two marks; the next run replaces it, and touches nothing when it is up to date. Classes made
    within functions are left out. A file is written only if it is the same program afterwards.

    \b
    Examples:
      pgflow docs --app myapp.flows:app
      pgflow docs --app myapp.flows:app --check
    """
    found = load_app(app, "", "pgflow")
    files: dict[Path, list[type[Workflow[Any]]]] = {}
    for workflow in found.versions:
        path, reason = _source(workflow, root.resolve())
        if path is not None:
            files.setdefault(path, []).append(workflow)
        else:
            print_notice(f"skipped {workflow.__qualname__}: {reason}")
    changed = 0
    code = 0
    for path, workflows in files.items():
        try:
            done = _update(path, workflows, is_dry=check)
        except (Invalid, OSError) as error:
            print_notice(f"pgflow: {printable(str(path))} is left alone: {printable(str(error))}")
            code = Invalid.exit_code
            continue
        changed += len(done)
        if done:
            click.echo(f"{printable(os.path.relpath(path))}: {', '.join(done)}")
    click.echo(f"{'Would update' if check else 'Updated'} {changed} workflow(s).")
    return code or (1 if check and changed else 0)


def _source(workflow: type[Workflow[Any]], root: Path) -> tuple[Path | None, str]:
    """Return the file that the class is written in, or None and why it is not to be touched."""
    if "<locals>" in workflow.__qualname__:
        return None, "it is made in a function"
    file = getattr(sys.modules.get(workflow.__module__), "__file__", None)
    if file is None or not file.endswith(".py"):
        return None, f"module {workflow.__module__} has no source file"
    path = Path(file).resolve()
    if not path.is_relative_to(root) or INSTALLED.intersection(path.relative_to(root).parts):
        return None, f"{path} is not below {root}, or is an installed package"
    return path, ""


def _update(path: Path, workflows: list[type[Workflow[Any]]], *, is_dry: bool) -> list[str]:
    """Bring the pictures of one file up to date, and return the names of the classes whose docstrings change.

    Raises `Invalid` when that cannot be done, without having touched the file; `OSError`.
    """
    raw = path.read_bytes()
    text, encoding, line_end = _read(raw)
    changed = []
    for workflow in workflows:
        before, text = text, picture.embed(text, workflow.__qualname__, workflow.name, picture.ascii(workflow.graph))
        if text != before:
            changed.append(workflow.__qualname__)
    if changed:
        written = _bytes(text, encoding, line_end)
        if not is_dry:
            _replace(path, written)
    return changed


def _read(raw: bytes) -> tuple[str, str, str]:
    r"""Return the text with "\n" for line ends, its encoding and its line end. Raises `Invalid` if bytes get lost."""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(raw).readline)
        text = raw.decode(encoding)
    except (SyntaxError, UnicodeDecodeError) as error:
        raise Invalid(f"it cannot be read: {error}") from error
    line_end = "\r\n" if "\r\n" in text else "\n"
    text = text.replace(line_end, "\n")
    if "\r" in text or _bytes(text, encoding, line_end) != raw:
        raise Invalid("it has line ends of several kinds")
    return text, encoding, line_end


def _bytes(text: str, encoding: str, line_end: str) -> bytes:
    try:
        return text.replace("\n", line_end).encode(encoding)
    except UnicodeEncodeError as error:
        raise Invalid(f"its encoding, {encoding}, has no {error.object[error.start]!r}: save it as UTF-8") from error


def _replace(path: Path, content: bytes) -> None:
    """Write a file as a whole or not at all."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        shutil.copymode(path, name)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
