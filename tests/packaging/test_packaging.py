"""A wheel, an sdist and an editable install each contain the SQL files, the types and the command."""

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
# --ignore-installed: otherwise pip would find pgflow among the borrowed packages
OFFLINE = ("--no-deps", "--no-index", "--no-build-isolation", "--ignore-installed")

pytestmark = pytest.mark.slow


@dataclass(frozen=True, slots=True)
class SeparateVenv:
    """A venv outside the checkout, which uses our site-packages but not our pgflow."""

    home: Path

    def run(self, *command: str) -> str:
        """Run a program of the venv in the venv's directory, and return its output."""
        environment = {**os.environ, "PYTHONPATH": get_path("purelib")}
        program, *arguments = command
        done = subprocess.run(
            [self.home / "bin" / program, *arguments], cwd=self.home, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def install(self, *what: str) -> None:
        """Install without network and dependencies."""
        self.run("python", "-m", "pip", "install", "--quiet", *OFFLINE, *what)


@pytest.fixture
def separate_venv(tmp_path: Path) -> SeparateVenv:
    """A fresh venv."""
    venv.create(tmp_path / "venv", symlinks=True)
    return SeparateVenv(tmp_path / "venv")


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the sdist and the wheel built from it."""
    folder = tmp_path_factory.mktemp("dist")
    build("--outdir", str(folder))
    return folder


def build(*options: str) -> None:
    """Build the checkout."""
    command = [sys.executable, "-m", "build", "--no-isolation", *options, str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def only(folder: Path, pattern: str) -> Path:
    """Return the single file of a directory that matches."""
    (found,) = folder.glob(pattern)
    return found


def test_an_installed_wheel_finds_its_sql_files(separate_venv: SeparateVenv, dist: Path) -> None:
    separate_venv.install(str(only(dist, "*.whl")))
    where = separate_venv.run("python", "-c", "from pgflow.database import files; print(files.root())")
    assert Path(where.strip()).is_relative_to(separate_venv.home)
    assert separate_venv.run("python", "-c", LIST_FILES).split() == files.list_files() != []


def test_an_editable_install_finds_the_sql_files_of_the_checkout(separate_venv: SeparateVenv) -> None:
    separate_venv.install("--editable", str(ROOT))
    where = separate_venv.run("python", "-c", "from pgflow.database import files; print(files.root())")
    assert Path(where.strip()) == ROOT / "sql"
    assert separate_venv.run("python", "-c", LIST_FILES).split() == files.list_files() != []


def test_an_installed_wheel_has_the_command(separate_venv: SeparateVenv, dist: Path) -> None:
    separate_venv.install(str(only(dist, "*.whl")))
    assert "worker" in separate_venv.run("pgflow", "--help")


def test_the_wheel_from_the_sdist_is_the_wheel_from_the_checkout(dist: Path, tmp_path: Path) -> None:
    build("--wheel", "--outdir", str(tmp_path))
    from_sdist, direct = (zipfile.ZipFile(only(folder, "*.whl")) for folder in (dist, tmp_path))
    with from_sdist, direct:
        assert sorted(from_sdist.namelist()) == sorted(direct.namelist())


def test_the_wheel_contains_only_the_package(dist: Path) -> None:
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
    assert [
        name for name in names if re.search(r"failpoint|torture|sql/(debug|queries/(change_log|debug))", name)
    ] == []
    assert naming == []


def test_the_sdist_contains_the_files_a_packager_needs(dist: Path) -> None:
    with tarfile.open(only(dist, "*.tar.gz")) as sdist:
        tops = {name.split("/")[1] for name in sdist.getnames()}
    assert {"LICENSE", "README.md", "bin", "pgflow", "pyproject.toml", "sql", "tests"} <= tops
