"""Run the worker under a small init process when it would be PID 1, as in a container without `--init`.

The kernel reparents orphaned processes to PID 1, which must reap them. A worker cannot: waiting for any child would
take the exit status away from a step that waits for its own child. So PID 1 forks the worker, forwards signals to it,
reaps all children, and exits with the worker's exit code, like tini and dumb-init.
"""

import os
import signal
import sys

__all__ = ["fork_if_pid_1", "fork_under_init"]

FORWARDED = frozenset(
    {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH}
)
SI_KERNEL = 0x80  # si_code of a signal from the terminal, which the worker receives directly
SIGNAL_EXIT_BASE = 128  # a process killed by signal n exits with 128 + n, the shells' convention


def fork_if_pid_1() -> None:
    """Fork the worker if this process is PID 1, and return in the worker. Call it before starting threads."""
    if os.getpid() == 1 and sys.platform == "linux":
        fork_under_init()


def fork_under_init() -> None:
    """Fork, and return in the child only: the parent becomes the init process and exits with the child's exit code."""
    watched = FORWARDED | {signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    while True:
        received = signal.sigwaitinfo(watched)
        if received.si_signo == signal.SIGCHLD:
            if (code := _reap(child)) is not None:
                os._exit(code)
        elif received.si_code != SI_KERNEL:
            os.kill(child, received.si_signo)


def _reap(worker: int) -> int | None:
    """Reap all ended children; return the worker's exit code if it is among them."""
    code = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:  # no children left
            return code
        if pid == 0:
            return code
        if pid == worker:
            exit_code = os.waitstatus_to_exitcode(status)
            code = exit_code if exit_code >= 0 else SIGNAL_EXIT_BASE - exit_code
