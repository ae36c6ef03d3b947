"""A wheel, an sdist and an editable install each bring the SQL files, the types and the command."""

import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path
from sysconfig import get_path

import pytest

from pgflow.database import files
from tests.torture.workers.failpoints import VARIABLE

ROOT = Path(__file__).parents[2]
LIST_FILES = """
from pgflow.database import files
print(*files.list_files(), sep="\\n")
assert all(files.load(path).startswith("--") for path in files.list_files())
"""
# --ignore-installed: pip would else take the borrowed packages' own pgflow for the one that is wanted
OFFLINE = ("--no-deps", "--no-index", "--no-build-isolation", "--ignore-installed")

pytestmark = pytest.mark.slow


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A venv far from the checkout, which borrows our packages but not our pgflow."""

    home: Path

    def run(self, *command: str) -> str:
        """Run a program of the venv, with the venv's folder as working directory, and return what it prints."""
        environment = {**os.environ, "PYTHONPATH": get_path("purelib")}
        program, *arguments = command
        done = subprocess.run(
            [self.home / "bin" / program, *arguments], cwd=self.home, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def install(self, *what: str) -> None:
        """Install with nothing but what is there: no network, no dependencies."""
        self.run("python", "-m", "pip", "install", "--quiet", *OFFLINE, *what)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Elsewhere:
    """A fresh venv."""
    venv.create(tmp_path / "venv", symlinks=True)
    return Elsewhere(tmp_path / "venv")


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    build("--outdir", str(folder))
    return folder


def build(*options: str) -> None:
    """Build the checkout."""
    command = [sys.executable, "-m", "build", "--no-isolation", *options, str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def only(folder: Path, pattern: str) -> Path:
    """Return the one file of a folder that matches."""
    (found,) = folder.glob(pattern)
    return found


def test_an_installed_wheel_finds_its_sql_files(elsewhere: Elsewhere, dist: Path) -> None:
    elsewhere.install(str(only(dist, "*.whl")))
    where = elsewhere.run("python", "-c", "from pgflow.database import files; print(files.root())")
    assert Path(where.strip()).is_relative_to(elsewhere.home)
    assert elsewhere.run("python", "-c", LIST_FILES).split() == files.list_files() != []


def test_an_editable_install_finds_the_sql_files_of_the_checkout(elsewhere: Elsewhere) -> None:
    elsewhere.install("--editable", str(ROOT))
    where = elsewhere.run("python", "-c", "from pgflow.database import files; print(files.root())")
    assert Path(where.strip()) == ROOT / "sql"
    assert elsewhere.run("python", "-c", LIST_FILES).split() == files.list_files() != []


def test_an_installed_wheel_brings_the_command(elsewhere: Elsewhere, dist: Path) -> None:
    elsewhere.install(str(only(dist, "*.whl")))
    assert "worker" in elsewhere.run("pgflow", "--help")


def test_the_wheel_from_the_sdist_is_the_wheel_from_the_checkout(dist: Path, tmp_path: Path) -> None:
    build("--wheel", "--outdir", str(tmp_path))
    from_sdist, direct = (zipfile.ZipFile(only(folder, "*.whl")) for folder in (dist, tmp_path))
    with from_sdist, direct:
        assert sorted(from_sdist.namelist()) == sorted(direct.namelist())


def test_the_wheel_holds_the_package_alone(dist: Path) -> None:
    with zipfile.ZipFile(only(dist, "*.whl")) as wheel:
        names = wheel.namelist()
    assert {name.split("/")[0] for name in names} == {"pgflow", "pgflow_engine-0.1.0.dist-info"}
    assert "pgflow/py.typed" in names
    assert "pgflow_engine-0.1.0.dist-info/licenses/LICENSE" in names


def test_the_wheel_holds_the_guides(dist: Path) -> None:
    with zipfile.ZipFile(only(dist, "*.whl")) as wheel:
        names = set(wheel.namelist())
    guides = {f"pgflow/docs/{path.name}" for path in (ROOT / "pgflow/docs").glob("*.md")}
    assert guides
    assert guides <= names


def test_the_wheel_has_no_fault_injection(dist: Path) -> None:
    with zipfile.ZipFile(only(dist, "*.whl")) as wheel:
        names = wheel.namelist()
        naming = [name for name in names if VARIABLE.encode() in wheel.read(name)]
    assert [name for name in names if re.search(r"failpoint|torture|sql/(debug|queries/(audit|debug))", name)] == []
    assert naming == []


def test_the_sdist_holds_what_a_packager_needs(dist: Path) -> None:
    with tarfile.open(only(dist, "*.tar.gz")) as sdist:
        tops = {name.split("/")[1] for name in sdist.getnames()}
    assert {"LICENSE", "README.md", "bin", "pgflow", "pyproject.toml", "sql", "tests"} <= tops
