"""Imports go down only, interfaces do not import each other, and the core has no I/O, clock or randomness."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "pgflow"

# From bottom to top. A unit is a module or package directly below pgflow/. `pgflow` itself is the public API: users and
# interfaces import it, the units below it do not. The dashboard is below the other interfaces: `pgflow web` starts it.
PUBLIC_API = "pgflow"
INTERFACES = {"cli", "testing", "contrib"}
LAYERS: tuple[set[str], ...] = (
    {"errors", "logs", "process", "jitter"},
    {"core", "steps", "telemetry", "config"},
    {"payloads"},
    {"database", "embedded"},
    {"store"},
    {"migrations"},
    {"client", "worker", "local"},
    {"app"},
    {PUBLIC_API},
    {"doctor", "bench"},
    {"web"},
    INTERFACES,
)
LAYER = {unit: number for number, units in enumerate(LAYERS) for unit in units}
PARTS = {"__main__": "cli"}  # `python -m pgflow` is the command, under another name

IO_MODULES = {
    *("asyncio", "http", "multiprocessing", "os", "pathlib", "psycopg", "psycopg_pool", "random", "secrets", "select"),
    *("shutil", "signal", "socket", "sqlite3", "subprocess", "tempfile", "threading", "time", "urllib"),
}
CLOCKS_AND_RANDOM = {"now", "today", "utcnow", "uuid1", "uuid4", "uuid7"}


def modules() -> list[Path]:
    """Return every Python file of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def unit_of(path: Path) -> str:
    """Return the unit of a file: "core" for pgflow/core/values/names.py, "pgflow" for pgflow/__init__.py."""
    name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return PUBLIC_API if name == "__init__" else PARTS.get(name, name)


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield the full name of each import of a module, nested ones included; a relative one begins with dots."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = "." * node.level + (node.module or "")
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def imported_units(tree: ast.AST) -> set[str]:
    """Return the units of pgflow that a module imports from."""
    units = set()
    for name in imports(tree):
        package, _, rest = name.partition(".")
        if package == "pgflow":
            first = rest.partition(".")[0]
            units.add(PARTS.get(first, first) if first in LAYER or first in PARTS else PUBLIC_API)
    return units


def violations(unit: str, tree: ast.AST) -> list[str]:
    """Return the forbidden imports of a module of `unit`."""
    found = [f"imports {name} relatively" for name in imports(tree) if name.startswith(".")]
    for other in sorted(imported_units(tree) - {unit}):
        if LAYER[other] > LAYER[unit]:
            found.append(f"imports {other} from a higher layer")
        elif {unit, other} <= INTERFACES:
            found.append(f"imports {other}, another interface")
    return found


def impurities(tree: ast.AST) -> list[str]:
    """Return where a module of the core uses I/O, a clock or randomness."""
    found = [f"imports {name}" for name in imports(tree) if name.partition(".")[0] in IO_MODULES]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CLOCKS_AND_RANDOM:
            found.append(f"calls .{node.func.attr}() in line {node.lineno}")
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in {"open", "print", "input"}
        ):
            found.append(f"calls {node.func.id}() in line {node.lineno}")
    return found


def test_every_module_belongs_to_a_layer() -> None:
    unplaced = [path.relative_to(ROOT) for path in modules() if unit_of(path) not in LAYER]
    assert unplaced == []


def test_imports_go_down_only() -> None:
    found = {
        str(path.relative_to(ROOT)): violations(unit_of(path), ast.parse(path.read_text()))
        for path in modules()
        if unit_of(path) in LAYER
    }
    assert {path: what for path, what in found.items() if what} == {}


def test_units_of_one_layer_have_no_import_cycle() -> None:
    uses: dict[str, set[str]] = {unit: set() for unit in LAYER}
    for path in modules():
        if unit_of(path) in LAYER:
            uses[unit_of(path)] |= imported_units(ast.parse(path.read_text())) - {unit_of(path)}
    standing = set(LAYER)
    while free := {unit for unit in standing if not uses[unit] & standing}:
        standing -= free
    assert standing == set()


def test_the_core_has_no_io_clock_or_randomness() -> None:
    found = {
        str(path.relative_to(ROOT)): impurities(ast.parse(path.read_text()))
        for path in (PACKAGE / "core").rglob("*.py")
    }
    assert {path: what for path, what in found.items() if what} == {}


def test_nested_imports_are_found() -> None:
    hidden = """
if TYPE_CHECKING:
    from pgflow.app import Pgflow
def later():
    import pgflow.worker.runner
    from pgflow import cli, Workflow
    from . import sibling
"""
    assert violations("store", ast.parse(hidden)) == [
        "imports ..sibling relatively",
        "imports app from a higher layer",
        "imports cli from a higher layer",
        "imports pgflow from a higher layer",
        "imports worker from a higher layer",
    ]


def test_an_import_of_another_interface_is_found() -> None:
    assert violations("contrib", ast.parse("def f():\n    from pgflow.cli.instances.show import table")) == [
        "imports cli, another interface"
    ]


def test_clocks_and_randomness_are_found() -> None:
    code = "from datetime import datetime\nimport random\nx = datetime.now()\ny = datetime(2000, 1, 1)\nopen('z')"
    assert impurities(ast.parse(code)) == ["imports random", "calls .now() in line 3", "calls open() in line 5"]
