"""Workflows of an application that configures logging and disables existing loggers: at import, and again in a step."""

from __future__ import annotations

import logging
import logging.config
import os
from typing import Any

from pgflow import Context, Done, Ok, Pgflow, Retry, Unique, Workflow, step

__all__ = ["WORKFLOWS", "Failing", "app"]

CONFIG: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": True,
    "formatters": {"plain": {"format": "mine: %(name)s %(message)s"}},
    "handlers": {"err": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"handlers": ["err"], "level": "WARNING"},
    "loggers": {"pgflow": {"level": "CRITICAL"}} if os.environ.get("HUSHED") == "entry" else {},
}
if "HUSHED" in os.environ:  # not in the process of the tests, which import this module too
    logging.config.dictConfig(CONFIG)


@step(retry=Retry(max_attempts=1))
def fail(ctx: Context[Any]) -> Ok:
    logging.config.dictConfig(CONFIG)
    raise LookupError("no such order")


class Failing(Workflow[Any], unique=Unique("failing")):
    """Its only step fails."""

    initial = fail
    transitions = {fail: {"done": Done}}


WORKFLOWS = (Failing,)
app = Pgflow(workflows=WORKFLOWS)
