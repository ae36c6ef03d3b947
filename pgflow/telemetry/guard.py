"""Keep exceptions of an application's telemetry and logging handlers from reaching the worker."""

from __future__ import annotations

import logging
import signal
import threading
from typing import Any

__all__ = ["Logger", "is_interrupt"]


def is_interrupt(error: BaseException) -> bool:
    """Whether an exception may be a real Ctrl+C rather than a KeyboardInterrupt that a handler raised itself.

    Python raises it in the main thread only, and only while its own SIGINT handler is installed; `asyncio.run` and
    `pgflow worker` install others.
    """
    return (
        issubclass(type(error), KeyboardInterrupt)
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )


class Logger(logging.LoggerAdapter[logging.Logger]):
    """The logger with this name; its methods raise nothing.

    `logging` catches an `Exception` from a handler's `emit`, but nothing from filters, no `SystemExit` from a formatter
    and nothing from an exception that cannot be formatted. A record whose handling raises is dropped.

        log = Logger("pgflow.worker")
    """

    def __init__(self, name: str) -> None:
        super().__init__(logging.getLogger(name))

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log unless that raises."""
        try:
            if self.logger.isEnabledFor(level):
                kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1  # the caller, and not this method
                self.logger.log(level, msg, *args, **kwargs)
        except BaseException as error:
            if is_interrupt(error):
                raise
