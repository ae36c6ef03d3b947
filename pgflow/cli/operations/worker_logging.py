"""What `pgflow worker` logs to stderr: its own lines, and the events at the level asked for."""

import logging
import sys

from pgflow import telemetry
from pgflow.cli.operations.worker_processes import Link
from pgflow.cli.output import printable

__all__ = ["OneLineFormatter", "attach_log", "configure_logging"]


class OneLineFormatter(logging.Formatter):
    """Formats a record, traceback included, as one line: untrusted text must not be able to forge log records."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, with control characters escaped."""
        return printable(super().format(record))


def configure_logging(level: str, link: Link | None = None) -> None:
    """Log to stderr; one of several processes with its number."""
    process = "" if link is None else f"[{link.number}] "
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLineFormatter(f"%(asctime)s %(levelname)s {process}%(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])


def attach_log(log_level: str) -> bool:
    """Log events at `log_level` and above; return whether there are any. Events without a handler cost nothing."""
    threshold = logging.getLevelNamesMapping()[log_level.upper()]
    levels = {
        **dict.fromkeys(telemetry.events(), logging.DEBUG),
        telemetry.WORKFLOW_STOP: logging.INFO,
        telemetry.RUNNER_RESCUE: logging.WARNING,
    }
    # The worker logs these two itself, with or without a handler.
    del levels[telemetry.WORKFLOW_EXCEPTION], levels[telemetry.RUNNER_INIT]
    names = [name for name, level in levels.items() if level >= threshold]
    if names:
        telemetry.attach_log_handler(level=levels, events=names)
    return bool(names)
