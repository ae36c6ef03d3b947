"""Parse connection strings, and describe where they lead without disclosing credentials."""

import re
from collections.abc import Mapping

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgflow.errors import BadDsn

__all__ = ["defaults", "parse", "place"]

# SQLAlchemy names its driver: postgresql+psycopg://. Heroku and others leave off the "ql".
SCHEME = re.compile(r"^postgres(?:ql)?(?:\+\w+)?://", re.IGNORECASE)
PORTS = re.compile(r"^[0-9]*(,[0-9]*)*$")
SECONDS = re.compile(r"^-?[0-9]+$")
FORMS_HINT = 'Write postgresql://user:password@host:5432/database or "host=… dbname=…".'
QUOTE_HINT = 'Percent-encode special characters in the user and the password: "@" is %40, "/" is %2F, ":" is %3A.'


def parse(dsn: str) -> dict[str, str]:
    """Return the connection parameters in `dsn`; an empty one has none, so libpq's PG* variables apply.

    Accepts `postgresql://`, `postgres://`, `postgresql+psycopg://` and `key=value`. Raises `BadDsn`, which never quotes
    the connection string: any part of a malformed one may be the password.

        parse("postgres://ann@db.example/shop")    # {"user": "ann", "dbname": "shop", "host": "db.example"}
    """
    text = dsn.strip()
    if "\0" in text:  # libpq would stop reading there
        raise BadDsn("the connection string contains a NUL character", hint=FORMS_HINT)
    is_uri = SCHEME.match(text) is not None
    if not is_uri and "://" in text.partition("=")[0]:
        raise BadDsn("the connection string is not a PostgreSQL one", hint=FORMS_HINT)
    try:
        parts = conninfo_to_dict(SCHEME.sub("postgresql://", text))
    except (psycopg.ProgrammingError, UnicodeError) as error:
        raise BadDsn(f"the connection string cannot be parsed ({_safe_reason(error)})", hint=FORMS_HINT) from None
    params = {key: str(value) for key, value in parts.items() if value is not None}
    if not PORTS.match(params.get("port", "")):
        raise BadDsn("the port in the connection string is not a number", hint=QUOTE_HINT)
    if not SECONDS.match(params.get("connect_timeout", "0")):
        raise BadDsn("connect_timeout in the connection string is not a number of seconds", hint=FORMS_HINT)
    # After an unencoded "@" or "/" in a password, the rest of the password is parsed as the host or the database.
    if is_uri and ("@" in params.get("host", "").lstrip("@") or "@" in params.get("dbname", "")):
        raise BadDsn('the connection string contains an unencoded "@"', hint=QUOTE_HINT)
    return params


def defaults() -> dict[str, str]:
    """Return libpq's values for parameters that a connection string lacks: PG* variables and built-in defaults."""
    return {
        option.keyword.decode(): option.val.decode(errors="replace")
        for option in pq.Conninfo.get_defaults()
        if option.val is not None
    }


def place(dsn: str) -> str:
    """Return where `dsn` leads, for messages: host:port/database, never the user or the password.

    libpq's defaults complete the connection string. Raises `BadDsn`.

        place("postgresql://ann:secret@db.example/shop")    # "db.example:5432/shop"
        place("")                                           # "local socket:5432/postgres"
    """
    params = {**defaults(), **parse(dsn)}
    if "service" in params:
        return f"service {params['service']}"
    hosts = (params.get("host") or params.get("hostaddr") or "").split(",")
    ports = (params.get("port") or "5432").split(",")
    ports += ports[-1:] * (len(hosts) - len(ports))
    database = params.get("dbname") or params.get("user") or ""
    pairs = zip(hosts, ports, strict=False)
    return ",".join(f"{host or 'local socket'}:{port or 5432}" for host, port in pairs) + f"/{database}"


def compose(params: Mapping[str, str]) -> str:
    """Return the parameters as one key=value connection string."""
    return make_conninfo("", **params)


def _safe_reason(error: Exception) -> str:
    """Return libpq's reason without the text that it quotes, unless that is the name of an option."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else "malformed"
    if re.fullmatch(r'invalid (URI query parameter|connection option): "[a-z_]{1,40}"', reason) or re.fullmatch(
        r'invalid connection option "[a-z_]{1,40}"', reason
    ):
        return reason
    return re.sub(r"[\"'].*[\"']", "…", reason)
