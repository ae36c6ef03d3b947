"""The house stands: imports go down a floor only, faces do not know each other, and the core has no world."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "pgflow"

# From the ground up. A unit is a module or package right below pgflow/. `pgflow` itself is the front door: what users
# import, and so what faces may import as well; nothing below it knows it.
DOOR = "pgflow"
FACES = {"cli", "web", "testing", "contrib"}
FLOORS: tuple[set[str], ...] = (
    {"errors", "logs", "process", "jitter"},
    {"core", "steps", "telemetry", "config"},
    {"database", "embedded"},
    {"store"},
    {"migrations"},
    {"client", "worker", "local"},
    {"app"},
    {DOOR},
    {"doctor", "bench"},
    FACES,
)
FLOOR = {unit: number for number, units in enumerate(FLOORS) for unit in units}
PARTS = {"__main__": "cli"}  # `python -m pgflow` is the command, under another name

WORLD = {
    *("asyncio", "http", "multiprocessing", "os", "pathlib", "psycopg", "psycopg_pool", "random", "secrets", "select"),
    *("shutil", "signal", "socket", "sqlite3", "subprocess", "tempfile", "threading", "time", "urllib"),
}
CLOCKS_AND_DICE = {"now", "today", "utcnow", "uuid1", "uuid4", "uuid7"}


def modules() -> list[Path]:
    """Return every Python file of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def unit_of(path: Path) -> str:
    """Return the unit of a file: "core" for pgflow/core/values/names.py, "pgflow" for pgflow/__init__.py."""
    name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return DOOR if name == "__init__" else PARTS.get(name, name)


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield the full name of all that a module imports, wherever the import stands; a relative one begins with dots."""
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
            units.add(PARTS.get(first, first) if first in FLOOR or first in PARTS else DOOR)
    return units


def complaints(unit: str, tree: ast.AST) -> list[str]:
    """Say what a module of `unit` imports that it may not."""
    said = [f"imports {name} relatively" for name in imports(tree) if name.startswith(".")]
    for other in sorted(imported_units(tree) - {unit}):
        if FLOOR[other] > FLOOR[unit]:
            said.append(f"imports {other} from a floor above")
        elif {unit, other} <= FACES:
            said.append(f"imports {other}, another face")
    return said


def impurities(tree: ast.AST) -> list[str]:
    """Say where a module of the core reaches for the world, a clock or a die."""
    said = [f"imports {name}" for name in imports(tree) if name.partition(".")[0] in WORLD]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CLOCKS_AND_DICE:
            said.append(f"calls .{node.func.attr}() in line {node.lineno}")
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in {"open", "print", "input"}
        ):
            said.append(f"calls {node.func.id}() in line {node.lineno}")
    return said


def test_every_module_stands_on_a_floor() -> None:
    homeless = [path.relative_to(ROOT) for path in modules() if unit_of(path) not in FLOOR]
    assert homeless == []


def test_imports_go_down_a_floor_only() -> None:
    said = {
        str(path.relative_to(ROOT)): complaints(unit_of(path), ast.parse(path.read_text()))
        for path in modules()
        if unit_of(path) in FLOOR
    }
    assert {path: what for path, what in said.items() if what} == {}


def test_units_of_one_floor_do_not_import_each_other_in_a_circle() -> None:
    uses: dict[str, set[str]] = {unit: set() for unit in FLOOR}
    for path in modules():
        if unit_of(path) in FLOOR:
            uses[unit_of(path)] |= imported_units(ast.parse(path.read_text())) - {unit_of(path)}
    standing = set(FLOOR)
    while free := {unit for unit in standing if not uses[unit] & standing}:
        standing -= free
    assert standing == set()


def test_the_core_has_no_input_output_clock_or_dice() -> None:
    said = {
        str(path.relative_to(ROOT)): impurities(ast.parse(path.read_text()))
        for path in (PACKAGE / "core").rglob("*.py")
    }
    assert {path: what for path, what in said.items() if what} == {}


def test_the_walk_sees_imports_that_hide() -> None:
    hidden = """
if TYPE_CHECKING:
    from pgflow.app import Pgflow
def later():
    import pgflow.worker.runner
    from pgflow import cli, Workflow
    from . import sibling
"""
    assert complaints("store", ast.parse(hidden)) == [
        "imports ..sibling relatively",
        "imports app from a floor above",
        "imports cli from a floor above",
        "imports pgflow from a floor above",
        "imports worker from a floor above",
    ]


def test_the_walk_sees_a_face_that_looks_at_another() -> None:
    assert complaints("web", ast.parse("def f():\n    from pgflow.cli.instances.show import table")) == [
        "imports cli, another face"
    ]


def test_the_walk_sees_clocks_and_dice() -> None:
    code = "from datetime import datetime\nimport random\nx = datetime.now()\ny = datetime(2000, 1, 1)\nopen('z')"
    assert impurities(ast.parse(code)) == ["imports random", "calls .now() in line 3", "calls open() in line 5"]
