"""What all requests of one dashboard share."""

from __future__ import annotations

from dataclasses import dataclass

from pgflow.app import Pgflow
from pgflow.web.data import Database
from pgflow.web.live import Live
from pgflow.web.settings import Settings

__all__ = ["Context"]


@dataclass(frozen=True, slots=True)
class Context:
    """The app, its database, and the settings."""

    app: Pgflow
    database: Database
    settings: Settings
    live: Live
