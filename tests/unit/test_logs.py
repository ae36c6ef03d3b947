"""A logging configuration that disables existing loggers does not disable pgflow's, unless it has an entry."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import pgflow
from pgflow.logs import AlwaysEnabledLogger, get_logger

PACKAGE = Path(pgflow.__file__).parent
NAMES = ("pgflow.worker", "pgflow.local", "pgflow.listen", "pgflow.telemetry", "pgflow.debug")
IMPORT = "import pgflow, pgflow.local, pgflow.worker, pgflow.telemetry, pgflow.worker.listener, pgflow.steps.debug"
TO_STDOUT = {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "plain"}
CONFIG: dict[str, Any] = {
    "version": 1,
    "formatters": {"plain": {"format": "%(name)s %(levelname)s %(message)s"}},
    "handlers": {"out": TO_STDOUT},
    "root": {"handlers": ["out"], "level": "INFO"},
}
INI = """
[loggers]
keys=root{more}
[handlers]
keys=out
[formatters]
keys=plain
[logger_root]
level=INFO
handlers=out
[handler_out]
class=StreamHandler
args=(sys.stdout,)
formatter=plain
[formatter_plain]
format=%(name)s %(levelname)s %(message)s
"""


def lines(*script: str) -> list[str]:
    """Run a script in its own process, then let each logger log a failure and something else."""
    tell = f"for name in {NAMES!r}: log = logging.getLogger(name); log.error('it failed'); log.info('it began')"
    text = "\n".join(("import logging, logging.config", *script, tell))
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, check=True, text=True, timeout=60)
    return done.stdout.splitlines()


def by_dict(**more: Any) -> str:
    return f"logging.config.dictConfig({ {**CONFIG, **more}!r})"


def by_file(path: Path, names: str = "", more: str = "") -> str:
    path.write_text(INI.format(more=names) + more)
    return f"logging.config.fileConfig({str(path)!r})"


ALL = [f"{name} {what}" for name in NAMES for what in ("ERROR it failed", "INFO it began")]


@pytest.mark.parametrize("is_imported_first", [True, False])
def test_a_blanket_disable_silences_nothing(tmp_path: Path, is_imported_first: bool) -> None:
    for configure in (by_dict(), by_dict(disable_existing_loggers=True), by_file(tmp_path / "log.ini")):
        script = (IMPORT, configure) if is_imported_first else (configure, IMPORT)
        assert lines(*script) == ALL


def test_a_disable_between_two_imports_silences_nothing_either() -> None:
    asked = [f"logging.getLogger({name!r})" for name in NAMES]
    assert lines(*asked, by_dict(), IMPORT, by_dict()) == ALL


@pytest.mark.parametrize("is_imported_first", [True, False])
@pytest.mark.parametrize(
    ("entry", "heard"),
    [
        ({"level": "ERROR"}, [f"{name} ERROR it failed" for name in NAMES]),
        ({"level": "CRITICAL"}, []),
        ({"propagate": False, "handlers": []}, []),
        ({"propagate": False, "handlers": ["out"]}, ALL),
    ],
)
def test_an_entry_for_pgflow_decides(entry: dict[str, Any], heard: list[str], is_imported_first: bool) -> None:
    configure = by_dict(loggers={"pgflow": entry}, disable_existing_loggers=True)
    assert lines(*((IMPORT, configure) if is_imported_first else (configure, IMPORT))) == heard


def test_an_entry_for_one_logger_applies_to_that_one(tmp_path: Path) -> None:
    expected = [line for line in ALL if line != "pgflow.worker INFO it began"]
    assert lines(IMPORT, by_dict(loggers={"pgflow.worker": {"level": "ERROR"}})) == expected
    entry = "[logger_worker]\nlevel=ERROR\nhandlers=\nqualname=pgflow.worker\n"
    assert lines(IMPORT, by_file(tmp_path / "log.ini", ",worker", entry)) == expected


def test_the_level_of_the_root_applies_if_pgflow_has_none() -> None:
    quiet = by_dict(root={"handlers": ["out"], "level": "ERROR"})
    assert lines(IMPORT, quiet) == [f"{name} ERROR it failed" for name in NAMES]


def test_a_logger_class_of_the_application_is_kept() -> None:
    script = (
        "class Own(logging.Logger):\n    def own(self): return 'own'",
        "logging.setLoggerClass(Own)",
        IMPORT,
        by_dict(),
        "assert logging.getLogger('pgflow.worker').own() == 'own'",
        "assert type(logging.getLogger('other')) is Own",
    )
    assert lines(*script) == ALL


def test_other_loggers_are_disabled_as_before() -> None:
    assert lines("other = logging.getLogger('other')", IMPORT, by_dict(), "other.error('x')") == ALL


def test_it_is_the_logger_of_logging_getlogger() -> None:
    log = get_logger("pgflow.worker")
    assert log is logging.getLogger("pgflow.worker")
    assert get_logger("pgflow.worker") is log
    assert isinstance(log, AlwaysEnabledLogger)
    assert type(logging.getLogger("pgflow.test_of_logs")) is logging.Logger
    log.disabled = True
    assert log.isEnabledFor(logging.ERROR)


def test_no_module_creates_its_logger_in_another_way() -> None:
    found = [
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if "= logging.getLogger(" in path.read_text() and path.name != "logs.py"
    ]
    assert found == []


def test_a_local_app_logs_its_failures(tmp_path: Path) -> None:
    flows = """
from pgflow import Context, Done, Ok, Retry, Unique, Workflow, step
from pgflow.local import Local

@step(retry=Retry(max_attempts=1))
def fails(ctx: Context[dict]) -> Ok:
    raise LookupError("no such order")

class Failing(Workflow[dict], unique=Unique("failing")):
    initial = fails
    transitions = {fails: {"done": Done}}
"""
    debug = {**CONFIG, "root": {"handlers": ["out"], "level": "DEBUG"}}
    run = "\n".join(
        (
            "import logging, logging.config, json",
            "from flows import *",
            f"logging.config.dictConfig(json.loads({json.dumps(debug)!r}))",
            "with Local(workflows=[Failing]) as app:",
            "    Failing.start('v', {})",
            "    app.drain()",
        )
    )
    (tmp_path / "flows.py").write_text(flows)
    done = subprocess.run(
        [sys.executable, "-c", run], capture_output=True, check=True, cwd=tmp_path, text=True, timeout=60
    )
    assert "pgflow.local DEBUG failing::v failed at fails: no such order" in done.stdout, done
