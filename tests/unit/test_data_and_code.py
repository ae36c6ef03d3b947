"""Data never becomes code: nothing unpickles, evaluates or imports its input, and no SQL is concatenated."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import pgflow
from pgflow.cli import COMMANDS

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "pgflow"

# Modules that create objects from their input, or run it.
MAKERS = {
    *("pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "jsonpickle", "joblib", "yaml"),
    *("code", "codeop", "runpy", "ctypes", "imp", "pkgutil", "pydoc", "xmlrpc"),
}
CALLS = {"eval", "exec", "compile", "__import__", "import_module", "import_string", "load_app", "load_module", "locate"}
# The allowed exceptions: module, and why its input is safe.
EXCEPTIONS = {
    ("cli/app_loader.py", "import_module"): "the app that the command line, or the user's own configuration, names",
    ("cli/lazy_group.py", "import_module"): "the modules of the commands, from a table",
    ("worker/cpu/main.py", "import_module"): "the app that the command line names, or the program has imported itself",
    ("__init__.py", "import_module"): "the homes of the public names, from a table",
    ("testing/__init__.py", "import_module"): "the homes of its public names, from a table",
    ("core/picture/docstring.py", "compile"): "the user's own file, to see whether it still compiles; it is not run",
    **{
        (f"cli/{name}.py", "load_app"): "pgflow.cli.app_loader"
        for name in (
            *(
                "instances/start",
                "jobs/enqueue",
                "operations/doctor",
                "operations/worker",
                "operations/web",
                "operations/payloads",
            ),
            *("workflows/docs", "workflows/graph", "workflows/validate"),
            "operations/worker_check",
            *("schedules/add", "schedules/backfill", "schedules/run_"),
        )
    },
}
RUNNERS = {
    "execute",
    "executemany",
    "copy",
    "stream",
    "Statement",
    "SQL",
}  # take the text of a statement
SPLICES = (ast.JoinedStr, ast.BinOp)


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Yield each call with the name of the called function, also if it is an attribute."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            match node.func:
                case ast.Name(id=name) | ast.Attribute(attr=name):
                    yield name, node


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield the name of each module that is imported, or imported from."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def dangers(tree: ast.AST, path: str) -> list[str]:
    """Return the places where a module could turn data into code."""
    made = [name for name in imports(tree) if name.partition(".")[0] in MAKERS]
    findings = [f"imports {name}" for name in made if (path, name) not in EXCEPTIONS]
    for name, call in calls(tree):
        is_method = isinstance(call.func, ast.Attribute)
        is_builtin = name in {"eval", "exec", "compile", "__import__"}
        if name in CALLS and not (is_builtin and is_method) and (path, name) not in EXCEPTIONS:
            findings.append(f"calls {name} in line {call.lineno}")
    return findings


def concatenated(tree: ast.AST) -> list[str]:
    """Return the places where a statement is concatenated from strings; psycopg's `sql` composes only identifiers."""
    findings = []
    for name, call in calls(tree):
        if name not in RUNNERS or not call.args:
            continue
        text = call.args[1 if name == "Statement" and len(call.args) > 1 else 0]
        is_formatted = (
            isinstance(text, ast.Call)
            and isinstance(text.func, ast.Attribute)
            and text.func.attr in ("format", "join", "replace")
            and isinstance(text.func.value, ast.Constant)
        )
        if (isinstance(text, SPLICES) and not _is_constant(text)) or is_formatted:
            findings.append(f"line {call.lineno}: {ast.unparse(text)[:60]}")
    return findings


def _is_constant(node: ast.AST) -> bool:
    """Whether an f-string or a sum contains only names in capitals, which are constants."""
    parts = [each for each in ast.walk(node) if isinstance(each, ast.Name | ast.Attribute | ast.Call)]
    return all(isinstance(each, ast.Name) and each.id.isupper() for each in parts)


def loose_asserts(tree: ast.AST) -> list[str]:
    """Return the asserts that do more than inform the type checker: python -O removes them."""
    findings = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            match node.test:
                case ast.Compare(ops=[ast.IsNot()], comparators=[ast.Constant(value=None)]):
                    continue
                case ast.Call(func=ast.Name(id="isinstance")):
                    continue
            findings.append(f"line {node.lineno}: {ast.unparse(node.test)}")
    return findings


@pytest.mark.parametrize("look", [dangers, concatenated, loose_asserts], ids=lambda look: look.__name__)
def test_no_module_turns_data_into_code(look: object) -> None:
    assert callable(look)
    findings = {}
    for path in modules():
        tree, name = ast.parse(path.read_text()), path.relative_to(PACKAGE).as_posix()
        findings[name] = look(tree, name) if look is dangers else look(tree)
    assert {path: what for path, what in findings.items() if what} == {}


def test_each_exception_is_still_needed() -> None:
    found = {
        (path.relative_to(PACKAGE).as_posix(), name)
        for path in modules()
        for tree in [ast.parse(path.read_text())]
        for name in [*imports(tree), *(called for called, _ in calls(tree))]
    }
    assert set(EXCEPTIONS) - found == set()


def test_lazy_imports_name_only_modules_of_pgflow() -> None:
    assert all(module.startswith("pgflow.") for module in pgflow.MODULES.values())
    assert all(each.target.startswith("pgflow.cli.") for each in COMMANDS.values())


def test_the_checks_detect_their_defects() -> None:
    code = """
import pickle, json
from yaml import load
def f(row, conn):
    eval(row["x"]); __import__(row["m"]); importlib.import_module(row["m"])
    conn.execute(f"select {row}"); conn.execute("select " + row); conn.execute("select %s" % row)
    conn.execute("select {}".format(row)); conn.execute(sql.SQL("select {}").format(sql.Identifier(row)))
    conn.execute(f"set local {UNCHECKED}"); conn.execute("select %s", [row])
    Statement("a", f"select {row}", {}); re.compile("x"); re.match("x", "y")
    assert row.is_allowed; assert row is not None; assert isinstance(row, dict)
"""
    tree = ast.parse(code)
    assert dangers(tree, "x.py") == [
        "imports pickle",
        "imports yaml",
        "calls eval in line 5",
        "calls __import__ in line 5",
        "calls import_module in line 5",
    ]
    assert [each.partition(":")[0] for each in concatenated(tree)] == ["line 6"] * 3 + ["line 7", "line 9"]
    assert loose_asserts(tree) == ["line 10: row.is_allowed"]


def test_each_pin_has_its_hashes() -> None:
    pins = re.split(r"\n(?=\S)", (ROOT / "bin" / "constraints.txt").read_text())
    packages = [pin for pin in pins if not pin.startswith("#")]
    assert len(packages) > 20
    assert [
        pin.split()[0] for pin in packages if not re.match(r"[\w.-]+==\S+ \\\n    --hash=sha256:[0-9a-f]{64}", pin)
    ] == []
    assert "--require-hashes -r bin/constraints.txt" in (ROOT / "bin" / "setup").read_text()
