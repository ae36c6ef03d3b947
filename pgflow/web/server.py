"""`pgflow web`: check the address against the authentication, and serve the dashboard with uvicorn."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from pgflow.errors import ConfigError
from pgflow.web.security.access import ALL
from pgflow.web.security.authentication import Authenticator, Basic, Bearer, FirstOf, Local, TrustedHeader

__all__ = ["authenticator_of", "check_address", "serve"]


def authenticator_of(environment: Mapping[str, str], *, header: str | None, is_insecure: bool) -> Authenticator:
    """Return how `pgflow web` recognises people, from its options and environment. Raises `ConfigError`.

    PGFLOW_WEB_USER and PGFLOW_WEB_PASSWORD: HTTP Basic. PGFLOW_WEB_TOKEN: a bearer token for programs. `header`: the
    user's name in a header that a proxy sets.
    """
    user, password = environment.get("PGFLOW_WEB_USER", ""), environment.get("PGFLOW_WEB_PASSWORD", "")
    token = environment.get("PGFLOW_WEB_TOKEN", "")
    if bool(user) != bool(password):
        missing = "PGFLOW_WEB_PASSWORD" if user else "PGFLOW_WEB_USER"
        raise ConfigError(f"{missing} is not set", hint="Basic authentication needs a user and a password: set both.")
    ways: list[Authenticator] = []
    if token:
        ways.append(Bearer(token, ALL.named("token")))
    if header:
        ways.append(TrustedHeader(header))
    if user:
        ways.append(Basic(user, password))
    return FirstOf(tuple(ways)) if ways else Local(is_open=is_insecure)


def check_address(host: str, authenticator: Authenticator) -> None:
    """Raise `ConfigError` for an address that others reach, without authentication."""
    if not isinstance(authenticator, Local) or authenticator.is_open or is_loopback(host):
        return
    raise ConfigError(
        f"without authentication the dashboard listens on this machine only, not on {host}",
        hint="Set PGFLOW_WEB_USER and PGFLOW_WEB_PASSWORD, PGFLOW_WEB_TOKEN, or --auth-header for a proxy.",
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def serve(dashboard: object, *, host: str, port: int, prefix: str = "") -> None:
    """Serve the dashboard until the program is interrupted. Raises `ConfigError` without uvicorn."""
    try:
        import uvicorn
    except ModuleNotFoundError as error:
        raise ConfigError(
            "the dashboard needs the package uvicorn, which is not installed",
            hint="Run: pip install 'pgflow-engine[web]'",
        ) from error
    uvicorn.run(  # no access log: URLs hold filters, and so business data
        dashboard,  # type: ignore[arg-type]  # an ASGI app
        host=host,
        port=port,
        root_path=prefix,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
    )
