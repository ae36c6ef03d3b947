"""The dashboard: pages, actions and a JSON API over one schema, as an ASGI app of Starlette, Jinja2 and htmx.

It needs the extra `web`. `dashboard(app)` is mounted in a program's own server, `pgflow web` serves it alone.

    dashboard.py    `dashboard(app, …)`: the ASGI app, made from the route table
    table.py        the route table: every page and every action, each declared once
    routing/        what a page and an action are; how requests become answers; errors; OpenAPI
    security/       who sends a request and what they may do; same origin; response headers
    pages/          one module per page: its model, its query parameters, how it is read
    actions/        one module per subject: its input, its right, what it does
    rendering/      templates, words for times and counts, forms from JSON schemas, drawings
    templates/      one template per page, `macros.html`, `base.html`
    static/         CSS, scripts and the icon, as they are sent; htmx 2.0.10 (0BSD) is vendored
    data.py         reads and writes: one transaction per request, a statement timeout on every query
    live.py         one LISTEN per process, fanned out to browsers
    server.py       `pgflow web`: addresses, and uvicorn

Decisions:

*A page is a function that returns a model.* `Page.load` reads what the page shows into a pydantic model; the template
and the JSON API render the same model. So whatever a page shows, a program can read, and OpenAPI describes it.

*One gate.* Pages and actions state the right they need. `routing.endpoints` is the only code that calls them, and it
checks origin, identity and right before it does. The JSON API goes through the same gate. A test makes a request for
each row of the table without its right.

*Reads cannot write.* A page's statements run in one read-only transaction with a statement timeout. They need a role
that only reads, and a replica will do. Counts are bounded, lists are paged by key.

*An action is audited where it happens.* Its transaction names the person (`pgflow.identify`), and the SQL function that
changes something records it. An action that failed has left nothing, neither a change nor an audit row.

*The server owns the page.* The URL is its whole state, and each page works without JavaScript. The script only fetches
the page again when something has changed, and morphs it in place.
"""

from pgflow.errors import ConfigError

try:
    import jinja2 as _jinja2  # noqa: F401 -- the extra is complete only with all of them
    import markdown_it as _markdown_it  # noqa: F401
    import starlette as _starlette  # noqa: F401
except ModuleNotFoundError as error:
    packages = {"jinja2": "jinja2", "markdown_it": "markdown-it-py", "starlette": "starlette"}
    if error.name not in packages:
        raise
    raise ConfigError(
        f"the dashboard needs the package {packages[error.name]}, which is not installed",
        hint="Run: pip install 'pgflow-engine[web]'",
    ) from error

from pgflow.web.dashboard import dashboard
from pgflow.web.security.access import ALL, READ_ONLY, Access, Deny

__all__ = ["ALL", "READ_ONLY", "Access", "Deny", "dashboard"]
