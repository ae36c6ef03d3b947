"""`pgflow web`: serve the dashboard."""

import os
from datetime import timedelta

import click

from pgflow.app import Pgflow
from pgflow.cli.app_loader import load_app
from pgflow.cli.error_reporting import GlobalOptions
from pgflow.cli.options import app_option, database_options
from pgflow.cli.output import print_notice
from pgflow.cli.parameters import TEXT, Duration
from pgflow.database.connect import connect
from pgflow.errors import ConfigError
from pgflow.migrations import migrate

__all__ = ["command"]


@click.command("web")
@app_option
@click.option("--host", default="127.0.0.1", envvar="PGFLOW_WEB_HOST", show_envvar=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    envvar="PGFLOW_WEB_PORT",
    show_envvar=True,
    help="Port to listen on; 0 takes a free one.",
)
@click.option("--prefix", default="", metavar="PATH", help="Path under which a proxy serves it, such as /pgflow.")
@click.option("--read-only", is_flag=True, show_default=False, help="Offer and accept no actions.")
@click.option("--title", type=TEXT, default="", envvar="PGFLOW_WEB_TITLE", help="Badge beside the name.")
@click.option("--tone", type=click.Choice(["", "prod", "stage"]), default="", help="Colour of the badge.")
@click.option("--auth-header", metavar="NAME", help="Header with the user's name that a trusted proxy sets.")
@click.option("--insecure-no-auth", is_flag=True, show_default=False, help="Let anybody in, from any address.")
@click.option("--hide", "hidden", multiple=True, metavar="KEY", help="JSON key whose values are hidden. Repeatable.")
@click.option("--no-data", is_flag=True, show_default=False, help="Show no inputs, outputs and payloads.")
@click.option(
    "--query-timeout",
    type=Duration(timedelta(milliseconds=100), timedelta(minutes=10), bare=True),
    default="5s",
    metavar="DURATION",
    help="Longest time that a query of a page may take.",
)
@database_options
def command(
    app: str | None,
    host: str,
    port: int,
    prefix: str,
    read_only: bool,
    title: str,
    tone: str,
    auth_header: str | None,
    insecure_no_auth: bool,
    hidden: tuple[str, ...],
    no_data: bool,
    query_timeout: timedelta,
    dsn: str,
    schema: str,
) -> None:
    """Serve the dashboard: see and steer instances, queues and workers in a browser.

    It listens on this machine only, unless there is a way to recognise people: PGFLOW_WEB_USER and PGFLOW_WEB_PASSWORD,
    PGFLOW_WEB_TOKEN, or --auth-header. With --app it knows the types of your workflows, for forms. Needs the extra
    `web`: pip install 'pgflow-engine[web]'.

    \b
    Examples:
      pgflow web
      pgflow web --app myapp.flows:app --port 9000
      PGFLOW_WEB_USER=ada PGFLOW_WEB_PASSWORD=… pgflow web --host 0.0.0.0
    """
    from pgflow.web.dashboard import dashboard
    from pgflow.web.server import authenticator_of, check_address, serve
    from pgflow.web.settings import HIDDEN_KEYS

    if prefix and (not prefix.startswith("/") or prefix.endswith("/")):
        raise ConfigError(f"--prefix must begin with a slash and not end with one, got {prefix!r}")
    authenticator = authenticator_of(os.environ, header=auth_header, is_insecure=insecure_no_auth)
    check_address(host, authenticator)
    pooler = click.get_current_context().ensure_object(GlobalOptions).pooler
    found = load_app(app, dsn, schema) if app else Pgflow(dsn, schema=schema, pooler=pooler)
    with connect(found.dsn, pooler=found.pooler) as conn:
        migrate.check(conn, found.schema)
    served = dashboard(
        found,
        authenticator=authenticator,
        title=title,
        tone=tone,
        read_only=read_only,
        hidden_keys=(*HIDDEN_KEYS, *hidden),
        shows_data=not no_data,
        query_timeout=query_timeout,
    )
    print_notice(
        f"The dashboard is at http://{'[' + host + ']' if ':' in host else host}:{port}{prefix}/ (Ctrl+C ends it)"
    )
    serve(served, host=host, port=port, prefix=prefix)
