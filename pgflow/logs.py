"""Loggers that a logging configuration cannot disable by accident, and whose handlers cannot raise."""

from __future__ import annotations

import logging
import signal
import threading
from typing import Any

__all__ = ["AlwaysEnabledLogger", "Logger", "get_logger", "is_interrupt"]


class AlwaysEnabledLogger(logging.Logger):
    """A logger that is never disabled as a whole.

    `logging.config.dictConfig` and `fileConfig` disable every existing logger that they do not name, unless
    `disable_existing_loggers` is False. An application that configures logging after it has imported pgflow would lose
    the errors of its worker. Levels, filters, handlers and `propagate` work as for any logger, so an entry for `pgflow`
    or `pgflow.worker` decides what is logged.
    """

    @property
    def disabled(self) -> bool:
        """Whether it is disabled: never."""
        return False

    @disabled.setter
    def disabled(self, value: bool) -> None:
        """Ignore it; set a level to silence this logger."""


def get_logger(name: str) -> logging.Logger:
    """Return the logger of this name; `disable_existing_loggers` does not affect it.

    log = get_logger("pgflow.worker")
    """
    logger = logging.getLogger(name)
    if not isinstance(logger, AlwaysEnabledLogger):
        # Change the class of this logger only: the application chooses the class of new loggers.
        kind = type(logger)
        logger.__class__ = (
            AlwaysEnabledLogger if kind is logging.Logger else type(kind.__name__, (AlwaysEnabledLogger, kind), {})
        )
    return logger


def is_interrupt(error: BaseException) -> bool:
    """Whether an exception may come from Ctrl+C, and not from a handler that raised KeyboardInterrupt itself.

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
        super().__init__(get_logger(name))

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log unless that raises."""
        try:
            if self.logger.isEnabledFor(level):
                kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1  # the caller, and not this method
                self.logger.log(level, msg, *args, **kwargs)
        except BaseException as error:
            if is_interrupt(error):
                raise
