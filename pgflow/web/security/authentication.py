"""Find out who sends a request: this machine's user, a password, a token, a proxy's header, or the host's way."""

from __future__ import annotations

import base64
import binascii
import getpass
import inspect
import ipaddress
import secrets
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from starlette.requests import Request

from pgflow.errors import ConfigError
from pgflow.web.security.access import ALL, Access, Deny

__all__ = ["Authenticator", "Authorize", "Basic", "Bearer", "Callback", "FirstOf", "Local", "TrustedHeader", "Unknown"]

Granted: TypeAlias = Access | Deny | Iterable[str] | None
Authorize: TypeAlias = Callable[[Request], Granted | Awaitable[Granted]]

FORWARDED = ("x-forwarded-for", "forwarded", "x-real-ip", "x-forwarded-host")
TOKEN = ALL.named("token")
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Unknown:
    """No user was recognised: `reason` is why, `challenge` is the WWW-Authenticate header, `login` a page to go to."""

    reason: str
    challenge: str | None = None
    login: str | None = None


class Authenticator(Protocol):
    """Recognises who sends a request."""

    async def identify(self, request: Request) -> Access | Unknown: ...


def _is_local(host: str) -> bool:
    if host in LOCAL_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Local:
    """Without authentication: requests of this machine only, under a name of this machine.

    A request that a proxy has forwarded is refused, because it may come from anywhere. So is one under another host
    name: a page of another site could have rebound its own name to 127.0.0.1 (DNS rebinding). `is_open` accepts all.
    """

    is_open: bool = False

    async def identify(self, request: Request) -> Access | Unknown:
        if not self.is_open:
            is_local = request.client is not None and _is_local(request.client.host)
            is_forwarded = any(name in request.headers for name in FORWARDED)
            if not is_local or is_forwarded or not _is_local(request.url.hostname or ""):
                return Unknown("Without authentication, the dashboard answers to this machine only.")
        return ALL.named(_os_user())


def _os_user() -> str:
    with suppress(OSError, KeyError, ImportError):  # a user id without a name, as in a container
        return getpass.getuser()
    return ""


@dataclass(frozen=True, slots=True)
class Basic:
    """HTTP Basic authentication of one user. Serve it over HTTPS only."""

    user: str
    password: str

    def __post_init__(self) -> None:
        if not self.user or not self.password:
            raise ConfigError("basic authentication needs a user and a password", hint="Set both.")

    async def identify(self, request: Request) -> Access | Unknown:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        unknown = Unknown("Sign in.", 'Basic realm="pgflow", charset="UTF-8"')
        if scheme.lower() != "basic":
            return unknown
        try:
            pair = base64.b64decode(given, validate=True)
        except (binascii.Error, ValueError):
            return unknown
        if secrets.compare_digest(pair, f"{self.user}:{self.password}".encode()):
            return ALL.named(self.user)
        return unknown


@dataclass(frozen=True, slots=True)
class Bearer:
    """A token in the header `Authorization: Bearer …`, for programs; `access` is what it grants."""

    token: str
    access: Access = TOKEN

    def __post_init__(self) -> None:
        if len(self.token) < 16:
            raise ConfigError("the token is shorter than 16 characters", hint="Make one: openssl rand -hex 32")

    async def identify(self, request: Request) -> Access | Unknown:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and secrets.compare_digest(given.strip().encode(), self.token.encode()):
            return self.access
        return Unknown("The token is missing or wrong.", "Bearer")


@dataclass(frozen=True, slots=True)
class TrustedHeader:
    """The user's name in a header that a proxy sets, such as X-Forwarded-User of oauth2-proxy.

    A client that reaches the dashboard around the proxy can claim any name: listen where only it connects.
    """

    header: str

    async def identify(self, request: Request) -> Access | Unknown:
        if user := request.headers.get(self.header, "").strip():
            return ALL.named(user[:100])
        return Unknown(f"The proxy has sent no header {self.header}.")


@dataclass(frozen=True, slots=True)
class Callback:
    """The host's own function: `authorize(request)`, sync or async, returns what the person may do.

    That is an `Access`, the names of rights, `ALL` or `READ_ONLY`; `Deny`, or None, for a user who may see nothing.
    """

    authorize: Authorize

    async def identify(self, request: Request) -> Access | Unknown:
        granted = self.authorize(request)
        if inspect.isawaitable(granted):
            granted = await granted
        match granted:
            case Access():
                return granted
            case None | Deny():
                return Unknown("You may not see this dashboard.", login=granted.login if granted else None)
            case bool() | str():
                raise ConfigError(
                    f"authorize returned {granted!r}", hint=f"Return ALL, READ_ONLY or rights: {', '.join(ALL.rights)}."
                )
        return Access(granted)


@dataclass(frozen=True, slots=True)
class FirstOf:
    """The first of several that recognises a user."""

    ways: tuple[Authenticator, ...]

    async def identify(self, request: Request) -> Access | Unknown:
        unknown = Unknown("There is no way to sign in.")
        challenges: list[str] = []
        for way in self.ways:
            found = await way.identify(request)
            if isinstance(found, Access):
                return found
            unknown = found
            challenges += [found.challenge] if found.challenge else []
        return Unknown(unknown.reason, ", ".join(challenges) or None, unknown.login)
