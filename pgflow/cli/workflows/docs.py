"""`pgflow docs`: write each workflow's diagram into its docstring, and keep it up to date."""

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
from pgflow.cli.options import app_option, debug_option, json_option
from pgflow.cli.output import print_document, print_notice, printable
from pgflow.client.workflow import Workflow
from pgflow.core import picture
from pgflow.errors import Invalid

__all__ = ["command"]

INSTALL_FOLDERS = {"site-packages", "dist-packages"}


@click.command("docs")
@app_option
@click.option(
    "--path",
    "root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=".",
    help="Change only files below this directory.",
)
@click.option(
    "--check", is_flag=True, show_default=False, help="Do not write; exit with 1 if a diagram is out of date."
)
@json_option
@debug_option
def command(app: str | None, root: Path, check: bool, as_json: bool) -> int:
    """Write a diagram of each workflow of an app into its docstring, where help() and editors show it.

    The diagram is placed between two markers and replaced on the next run; files that are up to date are not written.
    Classes defined in functions are skipped. A file is written only if its code, apart from docstrings, is unchanged.

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
    changed: dict[str, list[str]] = {}
    code = 0
    for path, workflows in files.items():
        try:
            done = _update(path, workflows, is_dry=check)
        except (Invalid, OSError) as error:
            print_notice(f"pgflow: {printable(str(path))} not updated: {printable(str(error))}")
            code = Invalid.exit_code
            continue
        if done:
            changed[os.path.relpath(path)] = done
    if as_json:
        print_document({"updated": not check, "files": changed})
    else:
        for name, done in changed.items():
            click.echo(f"{printable(name)}: {', '.join(done)}")
        count = sum(map(len, changed.values()))
        click.echo(f"{'Would update' if check else 'Updated'} {count} workflow(s).")
    return code or (1 if check and changed else 0)


def _source(workflow: type[Workflow[Any]], root: Path) -> tuple[Path | None, str]:
    """Return the source file of a class, or None and the reason why it cannot be changed."""
    if "<locals>" in workflow.__qualname__:
        return None, "defined in a function"
    file = getattr(sys.modules.get(workflow.__module__), "__file__", None)
    if file is None or not file.endswith(".py"):
        return None, f"module {workflow.__module__} has no source file"
    path = Path(file).resolve()
    if not path.is_relative_to(root) or INSTALL_FOLDERS.intersection(path.relative_to(root).parts):
        return None, f"{path} is not below {root}, or belongs to an installed package"
    return path, ""


def _update(path: Path, workflows: list[type[Workflow[Any]]], *, is_dry: bool) -> list[str]:
    """Update the diagrams of one file, and return the names of the classes whose docstrings change.

    Raises `Invalid` or `OSError` when the file cannot be changed safely; it is left unmodified then.
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
    r"""Return the text with "\n" line endings, its encoding and line ending. Raises `Invalid` if this loses bytes."""
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(raw).readline)
        text = raw.decode(encoding)
    except (SyntaxError, UnicodeDecodeError) as error:
        raise Invalid(f"cannot decode it: {error}") from error
    line_end = "\r\n" if "\r\n" in text else "\n"
    text = text.replace(line_end, "\n")
    if "\r" in text or _bytes(text, encoding, line_end) != raw:
        raise Invalid("mixed line endings")
    return text, encoding, line_end


def _bytes(text: str, encoding: str, line_end: str) -> bytes:
    try:
        return text.replace("\n", line_end).encode(encoding)
    except UnicodeEncodeError as error:
        raise Invalid(
            f"encoding {encoding} cannot represent {error.object[error.start]!r}: save the file as UTF-8"
        ) from error


def _replace(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        shutil.copymode(path, name)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
