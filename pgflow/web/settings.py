"""The settings of one dashboard."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from pgflow.web.security.authentication import Authenticator, Local

__all__ = ["HIDDEN_KEYS", "Settings"]

HIDDEN_KEYS = ("password", "passwd", "secret", "token", "api_key", "apikey", "authorization", "credit_card", "cvv")


@dataclass(frozen=True, slots=True)
class Settings:
    """How one dashboard looks and what it shows.

    - `title`: the badge beside the name, such as "Production", and `tone` its colour: "prod", "stage" or "".
    - `is_read_only`: no action is offered or accepted, whatever a person's rights are.
    - `hidden_keys`: JSON keys whose values are not shown, compared without case; the usual ones by default.
    - `shows_data`: whether inputs, outputs, payloads and errors are shown at all.
    - `query_timeout`: of each statement of a page; `action_timeout`: of each statement of an action.
    - `home`: where the link back to the program leads, or None.
    """

    title: str = ""
    tone: str = ""
    is_read_only: bool = False
    authenticator: Authenticator = field(default_factory=Local)
    hidden_keys: tuple[str, ...] = HIDDEN_KEYS
    shows_data: bool = True
    query_timeout: timedelta = timedelta(seconds=5)
    action_timeout: timedelta = timedelta(seconds=30)
    home: str | None = None
