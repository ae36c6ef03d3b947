"""Run `pgflow` commands to their end in forks of one process that has already imported the package.

A new interpreter needs half a second of CPU to import pgflow; a fork needs a few milliseconds. The command has its own
environment, working directory and files for stdin, stdout and stderr, and its exit code is that of a process. Tests of
signals, of encodings and of the start itself run a real `python -m pgflow` instead.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NoReturn

__all__ = ["CHECKOUT", "PROGRAM", "environment", "error_line", "run"]

CHECKOUT = Path(__file__).parents[2]
PROGRAM = (sys.executable, "-m", "pgflow")  # for tests that need a process of its own
PRELOADED = ("pgflow.cli", "pgflow.app", "pgflow.local", "psycopg.types.json", "pydantic")


def environment(**variables: str) -> dict[str, str]:
    """Return this process's environment without the variables that name a database, plus `variables`."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "DATABASE_URL"))}
    return {**kept, "PYTHONPATH": str(CHECKOUT), **variables}


def error_line(done: subprocess.CompletedProcess[str], exit_code: int) -> str:
    """Assert that a command failed with this exit code and printed one line, and return the line."""
    assert (done.returncode, done.stdout) == (exit_code, ""), done
    (line,) = done.stderr.splitlines()
    assert line.startswith("pgflow: ")
    assert "internal error" not in line
    assert "Traceback" not in line
    return line


def run(
    *arguments: str,
    env: Mapping[str, str],
    cwd: str | Path | None = None,
    stdin: bytes = b"",
    timeout: float = 60.0,
) -> subprocess.CompletedProcess[str]:
    """Run `pgflow <arguments>` and return its exit code and output, as `subprocess.run` does."""
    with tempfile.TemporaryDirectory() as folder:
        files = [str(Path(folder) / name) for name in ("stdin", "stdout", "stderr")]
        Path(files[0]).write_bytes(stdin)
        request = {"arguments": arguments, "env": dict(env), "cwd": str(cwd or CHECKOUT), "files": files}
        code = _server().run(request, timeout)
        out, err = (Path(name).read_bytes().decode(errors="replace") for name in files[1:])
    return subprocess.CompletedProcess(["pgflow", *arguments], code, out, err)


class _Server:
    """The process that forks; it ends with the process that started it, because its stdin does."""

    def __init__(self) -> None:
        code = "from tests.acceptance.command import serve; serve()"
        kept = {key: value for key, value in os.environ.items() if not key.startswith("PG")}
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=CHECKOUT,
            env={**kept, "PYTHONPATH": str(CHECKOUT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def run(self, request: object, timeout: float) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        previous = signal.signal(signal.SIGALRM, _expired)
        signal.setitimer(signal.ITIMER_REAL, timeout)
        try:
            return int(self._process.stdout.readline())
        except TimeoutError:
            os.killpg(self._process.pid, signal.SIGKILL)
            _server.cache_clear()
            raise
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(timeout=30)


def _expired(*_: object) -> NoReturn:
    raise TimeoutError("the command did not end in time")


@cache
def _server() -> _Server:
    server = _Server()
    atexit.register(server.close)
    return server


def serve() -> None:
    """Fork for each request that arrives on stdin, as a line of JSON, and write the exit code to stdout."""
    for name in PRELOADED:
        __import__(name)
    from pgflow.cli import COMMANDS

    for command in COMMANDS.values():
        __import__(command.target.partition(":")[0])
    for line in sys.stdin.buffer:
        pid = os.fork()
        if pid == 0:
            _become(json.loads(line))
        _, status = os.waitpid(pid, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def _become(request: dict[str, object]) -> NoReturn:
    """Run the command in this forked process, and end it."""
    arguments, env, cwd, files = (request[name] for name in ("arguments", "env", "cwd", "files"))
    assert isinstance(arguments, list)
    assert isinstance(env, dict)
    assert isinstance(files, list)
    code = 1
    try:
        os.chdir(str(cwd))
        os.environ.clear()
        os.environ.update(env)
        for number, name in enumerate(files):
            flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            os.dup2(os.open(name, flags, 0o600), number)
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 -- for the rest of the process
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        sys.argv = ["pgflow", *arguments]
        sys.dont_write_bytecode = "PYTHONDONTWRITEBYTECODE" in env
        sys.path[0] = ""
        code = _exit_code()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _exit_code() -> int:
    from pgflow.cli import main

    try:
        main()
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
        return 1
    else:
        code = 0
    atexit._run_exitfuncs()
    return code if isinstance(code, int) else 0 if code is None else 1
